// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/kemari-ft/kemari/tools/lab/channel"
	"github.com/kemari-ft/kemari/tools/lab/image"
	"github.com/kemari-ft/kemari/tools/lab/lab"
)

// Operations of the control socket beyond those of a host's agent.
const (
	opList    channel.Op = "list"
	opBoot    channel.Op = "boot" // Argv: host names
	opCut     channel.Op = "cut"
	opConsole channel.Op = "console"
	opKeys    channel.Op = "keys"    // Argv[0]: the keys
	opMonitor channel.Op = "monitor" // Argv: the command
	opStop    channel.Op = "stop"
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
	if err := os.Remove(socketPath()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", socketPath())
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { listener.Close() })
	c := &control{l: l, stop: stop}
	go func() {
		if _, err := l.Boot(names...); err != nil {
			fmt.Fprintln(os.Stderr, "lab:", err)
		}
	}()
	for {
		conn, err := listener.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			// A client that breaks off is its own affair.
			_ = channel.Serve(ctx, conn, c)
		}()
	}
}

// control answers requests on the control socket.
type control struct {
	l    *lab.Lab
	stop func()
}

func (c *control) Handle(ctx context.Context, req channel.Request, stdio channel.Stdio, sig <-chan syscall.Signal) channel.Status {
	status, err := c.handle(ctx, req, stdio, sig)
	if err != nil {
		return channel.Status{Code: -1, Err: err.Error()}
	}
	return status
}

func (c *control) handle(ctx context.Context, req channel.Request, stdio channel.Stdio, sig <-chan syscall.Signal) (channel.Status, error) {
	var none channel.Status
	switch req.Op {
	case opList:
		for _, h := range c.l.Hosts() {
			fmt.Fprintf(stdio.Out, "%s\t%s\t%s\n", h.Name, h.State(), h.Dir())
		}
		return none, nil
	case opBoot:
		_, err := c.l.Boot(req.Argv...)
		return none, err
	case opStop:
		c.l.Close()
		c.stop()
		return none, nil
	}
	h := c.l.Host(req.Host)
	if h == nil {
		return none, fmt.Errorf("there is no host %q", req.Host)
	}
	switch req.Op {
	case opCut:
		h.Cut()
		return none, nil
	case opKeys:
		text, err := h.Console().DebugKeys(ctx, strings.Join(req.Argv, ""))
		fmt.Fprint(stdio.Out, text)
		return none, err
	case opMonitor:
		text, err := h.Monitor(ctx, strings.Join(req.Argv, " "))
		fmt.Fprint(stdio.Out, text)
		return none, err
	case opConsole:
		return none, console(ctx, h, stdio)
	}
	return forward(ctx, h, req, stdio, sig)
}

// console connects a client to a host's serial port, beginning with what was
// printed so far.
func console(ctx context.Context, h *lab.Host, stdio channel.Stdio) error {
	go func() {
		buf := make([]byte, 256)
		for {
			n, err := stdio.In.Read(buf)
			if err != nil {
				return
			}
			if _, err := h.Console().Write(buf[:n]); err != nil {
				return
			}
		}
	}()
	from := 0
	for {
		text, more := h.Console().Since(from)
		if _, err := stdio.Out.Write(text); err != nil {
			return err
		}
		from += len(text)
		if more == nil {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil
		}
	}
}

// forward passes a request on to a host's agent.
func forward(ctx context.Context, h *lab.Host, req channel.Request, stdio channel.Stdio, sig <-chan syscall.Signal) (channel.Status, error) {
	call, err := h.Do(req, stdio.In)
	if err != nil {
		return channel.Status{}, err
	}
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		for {
			select {
			case s := <-sig:
				_ = call.Signal(s) // a dead host is what Wait reports
			case <-ended:
				return
			}
		}
	}()
	return call.Wait(ctx, stdio.Out, stdio.Err)
}
