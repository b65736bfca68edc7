// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/kemari-ft/kemari/tools/lab/channel"
)

// executor carries out requests on this machine.
type executor struct{}

func (executor) Handle(ctx context.Context, req channel.Request, stdio channel.Stdio, sig <-chan syscall.Signal) channel.Status {
	var status channel.Status
	var err error
	switch req.Op {
	case channel.Exec:
		status, err = execute(ctx, req, stdio, sig)
	case channel.Put:
		err = put(req, stdio.In)
	case channel.Get:
		status.Mode, err = get(req, stdio.Out)
	case channel.Dial:
		err = dial(ctx, req, stdio)
	default:
		err = fmt.Errorf("unknown operation %q", req.Op)
	}
	if err != nil {
		return channel.Status{Code: -1, Err: err.Error()}
	}
	return status
}

func execute(ctx context.Context, req channel.Request, stdio channel.Stdio, sig <-chan syscall.Signal) (channel.Status, error) {
	if len(req.Argv) == 0 {
		return channel.Status{}, errors.New("no command given")
	}
	cmd := exec.Command(req.Argv[0], req.Argv[1:]...)
	cmd.Dir = req.Dir
	cmd.Env = append(os.Environ(), req.Env...)
	// A process group of its own, so that a signal reaches what a shell started.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// Pipes of our own rather than cmd.Stdin and cmd.Stdout: Wait must neither
	// wait for input that never comes nor for a daemon that the command left
	// behind with its output open.
	in, err := cmd.StdinPipe()
	if err != nil {
		return channel.Status{}, err
	}
	out, outW, err := os.Pipe()
	if err != nil {
		return channel.Status{}, err
	}
	errOut, errW, err := os.Pipe()
	if err != nil {
		return channel.Status{}, errors.Join(err, out.Close(), outW.Close())
	}
	cmd.Stdout, cmd.Stderr = outW, errW
	err = cmd.Start()
	outW.Close()
	errW.Close()
	if err != nil {
		out.Close()
		errOut.Close()
		return channel.Status{}, err
	}
	go func() {
		// The command may close its input at any time.
		_, _ = io.Copy(in, stdio.In)
		in.Close()
	}()
	var copies sync.WaitGroup
	copies.Go(func() { copyOutput(stdio.Out, out) })
	copies.Go(func() { copyOutput(stdio.Err, errOut) })

	ended := make(chan struct{})
	go func() {
		for {
			select {
			case s := <-sig:
				// A process that is already gone is no failure.
				_ = syscall.Kill(-cmd.Process.Pid, s)
			case <-ctx.Done():
				_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
				return
			case <-ended:
				return
			}
		}
	}()
	err = cmd.Wait()
	// Wakes the copies; they notice an end of file by themselves.
	_ = out.SetReadDeadline(time.Now())
	_ = errOut.SetReadDeadline(time.Now())
	copies.Wait()
	close(ended)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return channel.Status{}, err
	}
	ws := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		return channel.Status{Code: -1, Signal: int(ws.Signal())}, nil
	}
	return channel.Status{Code: ws.ExitStatus()}, nil
}

// dial ends when the other end of the socket does. That of the input is not passed
// on: to some it means that nobody waits for an answer.
func dial(ctx context.Context, req channel.Request, stdio channel.Stdio) error {
	c, err := net.Dial("unix", req.Path)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	go func() {
		_, _ = io.Copy(c, stdio.In) // if it fails, so does the other one
	}()
	_, err = io.Copy(stdio.Out, c)
	return err
}

func put(req channel.Request, in io.Reader) error {
	f, err := os.CreateTemp(filepath.Dir(req.Path), ".put-")
	if err != nil {
		return err
	}
	_, err = io.Copy(f, in)
	err = errors.Join(err, f.Chmod(os.FileMode(req.Mode).Perm()), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), req.Path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

func get(req channel.Request, out io.Writer) (mode uint32, err error) {
	f, err := os.Open(req.Path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(out, f)
	return uint32(info.Mode().Perm()), err
}
