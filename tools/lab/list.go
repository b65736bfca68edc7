// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/kemari-ft/kemari/tools/lab/cache"
	"github.com/kemari-ft/kemari/tools/lab/channel"
	"github.com/kemari-ft/kemari/tools/lab/control"
	"github.com/kemari-ft/kemari/tools/lab/image"
)

func listCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the hosts, their state and where their logs are",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := call(cmd.Context(), channel.Request{Op: control.OpList}, nil, os.Stdout, nil)
			return err
		},
	}
}

// listHosts is what `lab list` prints, "" when no lab is running or it has no
// hosts yet.
func listHosts(ctx context.Context) string {
	var out bytes.Buffer
	if _, err := call(ctx, channel.Request{Op: control.OpList}, nil, &out, nil); err != nil {
		return ""
	}
	return out.String()
}

// cacheCmd makes one artefact and prints where it lies.
func cacheCmd() *cobra.Command {
	return &cobra.Command{
		Use:       "cache ARTEFACT",
		Short:     "Make an artefact if it is missing, and print its path",
		Long:      "Artefacts: xen-source, xen-debug, xen-release, dom0, guest-kernel, guest-kernel-small",
		Args:      cobra.ExactArgs(1),
		ValidArgs: []string{"xen-source", "xen-debug", "xen-release", "dom0", "guest-kernel", "guest-kernel-small"},
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := cache.Open()
			if err != nil {
				return err
			}
			b, err := image.NewBuilder(store, func(s string) { fmt.Fprintln(os.Stderr, "lab:", s) })
			if err != nil {
				return err
			}
			var path string
			switch args[0] {
			case "xen-source":
				path, err = b.XenSource(cmd.Context())
			case "xen-debug":
				path, err = b.Hypervisor(cmd.Context(), image.Debug)
			case "xen-release":
				path, err = b.Hypervisor(cmd.Context(), image.Release)
			case "dom0":
				var d image.Dom0
				d, err = b.Dom0(cmd.Context())
				path = d.Disk
			case "guest-kernel":
				var k image.GuestKernel
				k, err = b.GuestKernel(cmd.Context())
				path = k.Image + "\n" + filepath.Join(k.Root, "usr/lib/modules", k.Release)
			case "guest-kernel-small":
				path, err = b.SmallKernel(cmd.Context())
			default:
				err = fmt.Errorf("no artefact %q", args[0])
			}
			if err != nil {
				return err
			}
			fmt.Println(path)
			return nil
		},
	}
}
