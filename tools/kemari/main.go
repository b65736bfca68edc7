// SPDX-License-Identifier: Apache-2.0

// Kemari controls fault-tolerant guests; see kemari(1).
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/kemari-ft/kemari/toolstack/config"
	"github.com/kemari-ft/kemari/toolstack/control"
	"github.com/spf13/cobra"
)

func main() {
	root := &cobra.Command{
		Use:           "kemari",
		Short:         "Control fault-tolerant guests",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(createCmd(), protectCmd(), unprotectCmd(), statusCmd(), failoverCmd(), checkCmd(), pairCmd(), hookCmd())
	if err := root.Execute(); err != nil {
		for _, line := range strings.Split(err.Error(), "\n") {
			fmt.Fprintln(os.Stderr, "kemari:", line)
		}
		os.Exit(1)
	}
}

// ask asks kemarid, and shows its progress on standard error.
func ask(r control.Request) (*control.Reply, error) {
	last := ""
	return control.Ask(control.Socket, r, func(text string) {
		if text != "" && text != last {
			last = text
			fmt.Fprintln(os.Stderr, text)
		}
	})
}

func protectCmd() *cobra.Command {
	var r control.Request
	cmd := &cobra.Command{
		Use:   "protect GUEST",
		Short: "Protect a guest that runs",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			r.Op, r.Guest = control.OpProtect, args[0]
			_, err := ask(r)
			return err
		},
	}
	cmd.Flags().StringVar(&r.Peer, "peer", "", "the host that takes it, as kemari:tcp:HOST:PORT")
	cmd.Flags().DurationVar(&r.Interval, "interval", 0, "longest epoch")
	return cmd
}

func unprotectCmd() *cobra.Command {
	return endCmd(control.OpUnprotect, "End the protection of a guest")
}

func failoverCmd() *cobra.Command {
	return endCmd(control.OpFailover, "Let a guest go on at the other host, or here if this host holds its copy")
}

// endCmd is a command after which only one host has the guest: for that, the
// other one may have to be off.
func endCmd(op, short string) *cobra.Command {
	r := control.Request{Op: op}
	cmd := &cobra.Command{
		Use:   op + " GUEST",
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			r.Guest = args[0]
			_, err := ask(r)
			return err
		},
	}
	cmd.Flags().BoolVar(&r.PeerIsOff, "peer-is-off", false,
		"do not fence the other host: it is certain that it does not run (a guest that runs twice destroys its disk)")
	return cmd
}

func checkCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "check [FILE]",
		Short: "Say why this host and its peer, and the guest in FILE, cannot be protected",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			r := control.Request{Op: control.OpCheck}
			var errs []error
			if len(args) == 0 {
				// kemarid may have been started with another one.
				if _, err := config.LoadHost(config.File); err != nil {
					errs = append(errs, err)
				}
			} else {
				g, err := loadGuest(args[0])
				if err != nil {
					errs = append(errs, err)
				} else {
					r.Peer = g.ft.Peer.String()
				}
			}
			reply, err := ask(r)
			if err != nil {
				errs = append(errs, err)
			} else {
				for _, reason := range reply.Reasons {
					errs = append(errs, errors.New(reason))
				}
			}
			return errors.Join(errs...)
		},
	}
}
