// SPDX-License-Identifier: Apache-2.0

// Package vport opens virtio-serial ports.
package vport

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Open opens the port that QEMU gave that name. It looks in sysfs, because
// the links in /dev/virtio-ports exist only where udev saw the events.
func Open(name string) (*os.File, error) {
	names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		text, err := os.ReadFile(n)
		if err == nil && strings.TrimSpace(string(text)) == name {
			return os.OpenFile("/dev/"+filepath.Base(filepath.Dir(n)), os.O_RDWR, 0)
		}
	}
	return nil, fmt.Errorf("no virtio-serial port %s (have %d)", name, len(names))
}
