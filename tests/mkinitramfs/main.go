// SPDX-License-Identifier: Apache-2.0

// Mkinitramfs builds the initial RAM file system of the demonstration guest:
//
//	mkinitramfs OUT INIT MODULESDIR [MODULE...]
package main

import (
	"fmt"
	"os"

	"github.com/kemari-ft/kemari/tests/initramfs"
)

func main() {
	if len(os.Args) < 4 {
		fmt.Fprintln(os.Stderr, "usage: mkinitramfs OUT INIT MODULESDIR [MODULE...]")
		os.Exit(2)
	}
	if err := initramfs.Build(os.Args[1], os.Args[2], os.Args[3], os.Args[4:]); err != nil {
		fmt.Fprintln(os.Stderr, "mkinitramfs:", err)
		os.Exit(1)
	}
}
