// SPDX-License-Identifier: Apache-2.0

// The lab boots Xen hosts in QEMU and leaves them running for a human; see
// README.md. Tests use package lab instead.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
)

// errExit carries the exit status of a command that ran in a host.
type errExit int

func (e errExit) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{
		Use:           "lab",
		Short:         "Boot Xen hosts in QEMU",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(bootCmd(), serveCmd(), runCmd(), pushCmd(), pullCmd(), consoleCmd(), keysCmd(), monitorCmd(),
		cutCmd(), stopCmd(), listCmd(), cacheCmd())
	if err := root.ExecuteContext(ctx); err != nil {
		var exit errExit
		if errors.As(err, &exit) {
			os.Exit(int(exit))
		}
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(125) // as docker and env do, to tell our failure from the command's
	}
}

// labDir is where the running lab keeps its control socket and logs: one lab
// per user, unless KEMARI_LAB names another directory.
func labDir() string {
	if d := os.Getenv("KEMARI_LAB"); d != "" {
		return d
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("kemari-lab-%d", os.Getuid()))
}
