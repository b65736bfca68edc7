// SPDX-License-Identifier: Apache-2.0

// The agent runs in a lab host's dom0 and carries out the lab's requests,
// which arrive on a virtio-serial port.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/kemari-ft/kemari/tools/lab/channel"
	"github.com/kemari-ft/kemari/tools/lab/vport"
)

func main() {
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "lab agent:", err)
		os.Exit(1)
	}
}

func serve() error {
	f, err := vport.Open("org.kemari.agent")
	if err != nil {
		return err
	}
	defer f.Close()
	return channel.Serve(context.Background(), f, executor{})
}
