// SPDX-License-Identifier: Apache-2.0

// Package cpio writes archives in the "newc" format that the Linux kernel
// unpacks as an initramfs. See Documentation/driver-api/early-userspace/buffer-format.rst.
package cpio

import (
	"fmt"
	"io"
	"os"
)

// File types of the mode field. See stat(2).
const (
	typeDir  = 0o040000
	typeChar = 0o020000
	typeReg  = 0o100000
	typeLink = 0o120000
)

// A Writer writes one archive.
type Writer struct {
	w   io.Writer
	ino int
	err error
}

// NewWriter returns a writer of an empty archive onto w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

func (w *Writer) entry(name string, mode, major, minor int, data []byte) error {
	if w.err != nil {
		return w.err
	}
	w.ino++
	// magic, ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor,
	// rdevmajor, rdevminor, namesize, check
	h := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		w.ino, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name)+1, 0)
	w.put([]byte(h + name + "\x00"))
	w.pad(len(h) + len(name) + 1)
	w.put(data)
	w.pad(len(data))
	return w.err
}

func (w *Writer) put(b []byte) {
	if w.err == nil {
		_, w.err = w.w.Write(b)
	}
}

// pad aligns to four octets what follows n octets that began aligned.
func (w *Writer) pad(n int) { w.put(make([]byte, -n&3)) }

// Dir adds a directory. Parents must be added before their content.
func (w *Writer) Dir(name string) error { return w.entry(name, typeDir|0o755, 0, 0, nil) }

// File adds a regular file.
func (w *Writer) File(name string, perm os.FileMode, data []byte) error {
	return w.entry(name, typeReg|int(perm.Perm()), 0, 0, data)
}

// Symlink adds a symbolic link.
func (w *Writer) Symlink(name, target string) error {
	return w.entry(name, typeLink|0o777, 0, 0, []byte(target))
}

// Char adds a character device node.
func (w *Writer) Char(name string, major, minor int) error {
	return w.entry(name, typeChar|0o600, major, minor, nil)
}

// Close writes the trailer.
func (w *Writer) Close() error { return w.entry("TRAILER!!!", 0, 0, 0, nil) }
