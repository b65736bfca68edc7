// SPDX-License-Identifier: Apache-2.0

package initramfs

import (
	"fmt"
	"io"
	"slices"
)

// trailer is the name that ends an archive.
const trailer = "TRAILER!!!"

// entry is one file of the archive. What the kernel does not need (owner, time,
// device of origin) is zero, so that the same input gives the same archive.
type entry struct {
	name  string
	mode  uint32 // type and permissions, as in stat(2)
	major uint32 // of a device node
	minor uint32
	data  []byte
}

// Bits of entry.mode. See include/uapi/linux/stat.h.
const (
	modeDir     = 0o040000
	modeChar    = 0o020000
	modeFile    = 0o100000
	modeSymlink = 0o120000
)

// writeCPIO writes a "newc" archive.
// See Documentation/driver-api/early-userspace/buffer-format.rst in Linux.
func writeCPIO(w io.Writer, entries []entry) error {
	for i, e := range append(slices.Clip(entries), entry{name: trailer}) {
		// The order of the fields is: magic, ino, mode, uid, gid, nlink, mtime,
		// filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check.
		header := fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
			i+1, e.mode, 0, 0, 1, 0, len(e.data), 0, 0, e.major, e.minor, len(e.name)+1, 0)
		for _, part := range [][]byte{
			pad([]byte(header + e.name + "\x00")),
			pad(e.data),
		} {
			if _, err := w.Write(part); err != nil {
				return fmt.Errorf("write %s into the archive: %w", e.name, err)
			}
		}
	}
	return nil
}

// pad fills up to four bytes, the alignment of names and of data.
func pad(b []byte) []byte {
	b = slices.Clip(b)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}
