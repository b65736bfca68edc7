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
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/kemari-ft/kemari/tools/lab/channel"
	"github.com/kemari-ft/kemari/tools/lab/control"
	"github.com/kemari-ft/kemari/tools/lab/lab"
)

// dial connects to the running lab.
func dial() (*channel.Client, error) {
	conn, err := net.Dial("unix", control.Socket(labDir()))
	if err != nil {
		return nil, fmt.Errorf("no lab is running (%w); start one with: lab boot", err)
	}
	return channel.NewClient(conn), nil
}

// call carries out a request and turns its status into an error.
func call(ctx context.Context, req channel.Request, in io.Reader, out, errOut io.Writer) (channel.Status, error) {
	c, err := dial()
	if err != nil {
		return channel.Status{}, err
	}
	status, err := c.Do(ctx, req, in, out, errOut)
	if err != nil {
		return status, err
	}
	if status.Err != "" {
		return status, errors.New(status.Err)
	}
	if status.Signal != 0 {
		return status, errExit(128 + status.Signal)
	}
	if status.Code != 0 {
		return status, errExit(status.Code)
	}
	return status, nil
}

func bootCmd() *cobra.Command {
	var flags bootFlags
	cmd := &cobra.Command{
		Use:   "boot [HOST...]",
		Short: "Start the lab, or power on hosts of the running one",
		RunE: func(cmd *cobra.Command, args []string) error {
			if c, err := dial(); err == nil {
				if len(args) == 0 {
					return errors.New("a lab is running already; name the hosts to power on, or stop it with: lab stop")
				}
				status, err := c.Do(cmd.Context(), channel.Request{Op: control.OpBoot, Argv: args}, nil, nil, nil)
				return errors.Join(err, status.Check())
			}
			return startServer(cmd.Context(), os.Args[2:])
		},
	}
	flags.register(cmd)
	return cmd
}

// startServer runs `lab serve` in the background and waits until its hosts
// are up.
func startServer(ctx context.Context, args []string) error {
	if err := os.MkdirAll(labDir(), 0o755); err != nil {
		return err
	}
	logPath := filepath.Join(labDir(), "lab.log")
	log, err := os.Create(logPath)
	if err != nil {
		return err
	}
	defer log.Close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, append([]string{"serve"}, args...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()
	shown := 0
	for {
		text, err := os.ReadFile(logPath)
		if err != nil {
			return err
		}
		os.Stderr.Write(text[shown:])
		shown = len(text)
		select {
		case <-ended:
			return fmt.Errorf("the lab did not start; see %s", logPath)
		case <-ctx.Done():
			cmd.Process.Signal(syscall.SIGTERM)
			return context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
		if list := listHosts(ctx); list != "" && !strings.Contains(list, "\t"+string(lab.Booting)+"\t") {
			fmt.Print(list)
			if strings.Count(list, "\t"+string(lab.Up)+"\t") < strings.Count(list, "\n") {
				return fmt.Errorf("a host did not come up; see %s; lab boot HOST tries again", logPath)
			}
			return nil
		}
	}
}

func runCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run HOST COMMAND [ARG...]",
		Short: "Run a command in a host's dom0",
		Args:  cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial()
			if err != nil {
				return err
			}
			running, err := c.Start(channel.Request{Op: channel.Exec, Host: args[0], Argv: args[1:]}, os.Stdin)
			if err != nil {
				return err
			}
			// The first interrupt goes to the command, as in a shell.
			sig := make(chan os.Signal, 1)
			signal.Notify(sig, os.Interrupt, syscall.SIGTERM)
			go func() {
				for s := range sig {
					running.Signal(s.(syscall.Signal))
				}
			}()
			status, err := running.Wait(context.WithoutCancel(cmd.Context()), os.Stdout, os.Stderr)
			switch {
			case err != nil:
				return err
			case status.Err != "":
				return errors.New(status.Err)
			case status.Signal != 0:
				return errExit(128 + status.Signal)
			case status.Code != 0:
				return errExit(status.Code)
			}
			return nil
		},
	}
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func pushCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "push HOST LOCAL REMOTE",
		Short: "Copy a file to a host's dom0",
		Args:  cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := os.Open(args[1])
			if err != nil {
				return err
			}
			defer f.Close()
			info, err := f.Stat()
			if err != nil {
				return err
			}
			req := channel.Request{Op: channel.Put, Host: args[0], Path: args[2], Mode: uint32(info.Mode().Perm())}
			_, err = call(cmd.Context(), req, f, nil, nil)
			return err
		},
	}
}

func pullCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "pull HOST REMOTE LOCAL",
		Short: "Copy a file from a host's dom0",
		Args:  cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := os.Create(args[2])
			if err != nil {
				return err
			}
			_, err = call(cmd.Context(), channel.Request{Op: channel.Get, Host: args[0], Path: args[1]}, nil, f, nil)
			return errors.Join(err, f.Close())
		},
	}
}

func consoleCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "console HOST",
		Short: "Show a host's serial console and type on it; end with Ctrl-C",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := call(cmd.Context(), channel.Request{Op: control.OpConsole, Host: args[0]}, os.Stdin, os.Stdout, nil)
			if cmd.Context().Err() != nil {
				return nil
			}
			return err
		},
	}
}

func keysCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "keys HOST KEYS",
		Short: "Type Xen debug keys on the serial port (h lists them); works when dom0 hangs",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := channel.Request{Op: control.OpKeys, Host: args[0], Argv: args[1:]}
			_, err := call(cmd.Context(), req, nil, os.Stdout, nil)
			return err
		},
	}
}

func monitorCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "monitor HOST COMMAND...",
		Short: "Run a command of QEMU's monitor, such as: info registers",
		Args:  cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := channel.Request{Op: control.OpMonitor, Host: args[0], Argv: args[1:]}
			_, err := call(cmd.Context(), req, nil, os.Stdout, nil)
			return err
		},
	}
}

func cutCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "cut HOST",
		Short: "Take a host's power away",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := call(cmd.Context(), channel.Request{Op: control.OpCut, Host: args[0]}, nil, nil, nil)
			return err
		},
	}
}

func stopCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "stop",
		Short: "Cut all hosts and end the lab",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := call(cmd.Context(), channel.Request{Op: control.OpStop}, nil, nil, nil)
			if errors.Is(err, channel.ErrClosed) {
				return nil // it ended before it could say so
			}
			return err
		},
	}
}
