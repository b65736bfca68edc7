// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/kemari-ft/kemari/tools/lab/channel"
)

// A Call is a request that dom0 carries out.
type Call struct {
	*channel.Call
	h *Host
}

// Wait is channel.Call.Wait; its error tells of the host's crash, if any.
func (c *Call) Wait(ctx context.Context, out, errOut io.Writer) (channel.Status, error) {
	status, err := c.Call.Wait(ctx, out, errOut)
	if err != nil {
		err = fmt.Errorf("host %s: %w", c.h.Name, c.h.explain(err))
	}
	return status, err
}

// Start runs a command in dom0 with in as its input (nil for none).
func (h *Host) Start(in io.Reader, argv ...string) (*Call, error) {
	return h.Do(channel.Request{Op: channel.Exec, Argv: argv}, in)
}

// Do carries out a request in dom0.
func (h *Host) Do(req channel.Request, in io.Reader) (*Call, error) {
	call, err := h.agent.Start(req, in)
	if err != nil {
		return nil, fmt.Errorf("host %s: %w", h.Name, h.explain(err))
	}
	return &Call{call, h}, nil
}

// Run runs a command in dom0 and returns its standard output. A status other
// than 0 is an error that quotes the standard error output.
func (h *Host) Run(ctx context.Context, argv ...string) (string, error) {
	var out, errOut bytes.Buffer
	err := h.finish(ctx, channel.Request{Op: channel.Exec, Argv: argv}, nil, &out, &errOut)
	if err != nil {
		return out.String(), fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, bytes.TrimSpace(errOut.Bytes()))
	}
	return out.String(), nil
}

// Shell runs a script in dom0's shell.
func (h *Host) Shell(ctx context.Context, script string) (string, error) {
	return h.Run(ctx, "sh", "-c", script)
}

// Push copies a local file to dom0, with its mode.
func (h *Host) Push(ctx context.Context, local, remote string) error {
	f, err := os.Open(local)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return h.PushFrom(ctx, f, remote, info.Mode().Perm())
}

// PushFrom writes a file in dom0.
func (h *Host) PushFrom(ctx context.Context, r io.Reader, remote string, mode os.FileMode) error {
	err := h.finish(ctx, channel.Request{Op: channel.Put, Path: remote, Mode: uint32(mode.Perm())}, r, nil, nil)
	if err != nil {
		return fmt.Errorf("writing %s: %w", remote, err)
	}
	return nil
}

// Pull copies a file from dom0.
func (h *Host) Pull(ctx context.Context, remote, local string) error {
	f, err := os.Create(local)
	if err != nil {
		return err
	}
	err = h.finish(ctx, channel.Request{Op: channel.Get, Path: remote}, nil, f, nil)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("reading %s: %w", remote, err)
	}
	return nil
}

// Ask writes in to a unix socket in dom0 and returns what comes until it is closed there.
func (h *Host) Ask(ctx context.Context, path string, in []byte) ([]byte, error) {
	var out bytes.Buffer
	err := h.finish(ctx, channel.Request{Op: channel.Dial, Path: path}, bytes.NewReader(in), &out, nil)
	if err != nil {
		return nil, fmt.Errorf("asking at %s: %w", path, err)
	}
	return out.Bytes(), nil
}

func (h *Host) finish(ctx context.Context, req channel.Request, in io.Reader, out, errOut io.Writer) error {
	call, err := h.Do(req, in)
	if err != nil {
		return err
	}
	status, err := call.Wait(ctx, out, errOut)
	if err != nil {
		return err
	}
	if err := status.Check(); err != nil {
		return fmt.Errorf("host %s: %w", h.Name, err)
	}
	return nil
}
