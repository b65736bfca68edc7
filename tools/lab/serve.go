// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kemari-ft/kemari/tools/lab/control"
	"github.com/kemari-ft/kemari/tools/lab/image"
	"github.com/kemari-ft/kemari/tools/lab/lab"
)

type bootFlags struct {
	count   int
	smp     int
	memory  int
	xen     string
	xenArgs string
	release bool
	tools   []string
	files   []string
}

func (f *bootFlags) register(cmd *cobra.Command) {
	cmd.Flags().IntVarP(&f.count, "hosts", "n", 1, "number of hosts; they are called a, b, c...")
	cmd.Flags().IntVar(&f.smp, "smp", 1, "physical CPUs of a host")
	cmd.Flags().IntVarP(&f.memory, "memory", "m", 1024, "memory of a host in MiB")
	cmd.Flags().StringVar(&f.xen, "xen", "", "hypervisor to boot (xen/xen, not xen.gz); default: build it with the patch series")
	cmd.Flags().StringVar(&f.xenArgs, "xen-args", "", "added to Xen's command line")
	cmd.Flags().BoolVar(&f.release, "release", false, "build the hypervisor without assertions")
	cmd.Flags().StringSliceVar(&f.tools, "tool", nil, "main package to find in /opt/kemari/bin, as for go build")
	cmd.Flags().StringSliceVar(&f.files, "file", nil, "NAME=PATH: file to find in /opt/kemari/NAME")
}

func (f *bootFlags) config() (lab.Config, error) {
	files := map[string]string{}
	for _, s := range f.files {
		name, path, ok := strings.Cut(s, "=")
		if !ok {
			return lab.Config{}, fmt.Errorf("--file %s: want NAME=PATH", s)
		}
		files[name] = path
	}
	variant := image.Debug
	if f.release {
		variant = image.Release
	}
	return lab.Config{
		Dir: labDir(), Xen: f.xen, XenArgs: f.xenArgs, Variant: variant, SMP: f.smp, MemoryMiB: f.memory,
		Tools: f.tools, Files: files,
		Log: func(s string) { fmt.Fprintln(os.Stderr, "lab:", s) },
	}, nil
}

func hostNames(n int) []string {
	var names []string
	for i := range n {
		names = append(names, string(rune('a'+i)))
	}
	return names
}

// serveCmd is the process behind `lab boot`: it holds the hosts until it is
// told to stop.
func serveCmd() *cobra.Command {
	var flags bootFlags
	cmd := &cobra.Command{
		Use:    "serve",
		Short:  "Hold hosts in the foreground",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := flags.config()
			if err != nil {
				return err
			}
			return serve(cmd.Context(), cfg, hostNames(flags.count))
		},
	}
	flags.register(cmd)
	return cmd
}

func serve(ctx context.Context, cfg lab.Config, names []string) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	l, err := lab.New(ctx, cfg)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := control.Serve(ctx, l, stop); err != nil {
		return err
	}
	if _, err := l.Boot(names...); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
	}
	<-ctx.Done()
	return nil
}
