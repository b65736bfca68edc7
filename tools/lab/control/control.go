// SPDX-License-Identifier: Apache-2.0

// Package control lets a human look into a running lab: the hosts of
// `lab boot`, or those of a scenario.
package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/kemari-ft/kemari/tools/lab/channel"
	"github.com/kemari-ft/kemari/tools/lab/lab"
)

// Operations of the control socket beyond those of a host's agent.
const (
	OpList    channel.Op = "list"
	OpBoot    channel.Op = "boot" // Argv: host names
	OpCut     channel.Op = "cut"
	OpConsole channel.Op = "console"
	OpKeys    channel.Op = "keys"    // Argv[0]: the keys
	OpMonitor channel.Op = "monitor" // Argv: the command
	OpStop    channel.Op = "stop"
)

// Socket is where the lab whose directory is dir is controlled.
func Socket(dir string) string { return filepath.Join(dir, "control.sock") }

// Serve answers requests in the background until ctx ends. stop is called when
// a client has stopped the lab.
func Serve(ctx context.Context, l *lab.Lab, stop func()) error {
	if err := os.Remove(Socket(l.Dir())); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", Socket(l.Dir()))
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { listener.Close() })
	c := &control{l: l, stop: stop}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil { // closed
				return
			}
			go func() {
				defer conn.Close()
				// A client that breaks off is its own affair.
				_ = channel.Serve(ctx, conn, c)
			}()
		}
	}()
	return nil
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
	case OpList:
		for _, h := range c.l.Hosts() {
			fmt.Fprintf(stdio.Out, "%s\t%s\t%s\n", h.Name, h.State(), h.Dir())
		}
		return none, nil
	case OpBoot:
		_, err := c.l.Boot(req.Argv...)
		return none, err
	case OpStop:
		c.l.Close()
		c.stop()
		return none, nil
	}
	h := c.l.Host(req.Host)
	if h == nil {
		return none, fmt.Errorf("there is no host %q", req.Host)
	}
	switch req.Op {
	case OpCut:
		h.Cut()
		return none, nil
	case OpKeys:
		text, err := h.Console().DebugKeys(ctx, strings.Join(req.Argv, ""))
		fmt.Fprint(stdio.Out, text)
		return none, err
	case OpMonitor:
		text, err := h.Monitor(ctx, strings.Join(req.Argv, " "))
		fmt.Fprint(stdio.Out, text)
		return none, err
	case OpConsole:
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
