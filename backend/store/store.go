// SPDX-License-Identifier: Apache-2.0

// Package store is what lies behind a guest's disk: a block device or a raw
// file.
//
// A protected guest never notices the loss of its host, so there is no crash
// after which it would expect to find less than it was told was written. Hence
// the rule of this package (invariant I15): when WriteAt returns, the data can
// be read by the other host over its own path. Whatever caches writes on this
// host only is refused at Open, not used with care.
package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Store is a disk's storage. Offsets and lengths are multiples of SectorSize,
// and buffers are aligned to a page. Its methods may be called concurrently.
type Store interface {
	io.ReaderAt
	// WriteAt returns when the data can be read by the other host.
	io.WriterAt
	// Flush returns when all data written before is on stable storage.
	Flush() error
	// Discard gives up the contents of a range. It fails with
	// errors.ErrUnsupported where storage can not do this.
	Discard(off, n int64) error
	// Size is the length in bytes.
	Size() int64
	// SectorSize is the logical sector size in bytes: the unit of access.
	SectorSize() int
	Close() error
}

// Options say how a target is opened.
type Options struct {
	ReadOnly bool

	anyFileSystem bool // for tests, whose files lie on this host
}

// Open opens a block device or a raw file for direct access.
func Open(path string, o Options) (Store, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("opening disk %s: %w", path, err)
	}
	switch m := st.Mode(); {
	case m&fs.ModeDevice != 0 && m&fs.ModeCharDevice == 0:
		s, err := openBlock(path, o)
		if err != nil {
			return nil, fmt.Errorf("opening block device %s: %w", path, err)
		}
		return s, nil
	case m.IsRegular():
		s, err := openFile(path, o)
		if err != nil {
			return nil, fmt.Errorf("opening raw file %s: %w", path, err)
		}
		return s, nil
	}
	return nil, fmt.Errorf("opening disk %s: it is neither a block device nor a regular file", path)
}

// direct is what devices and files have in common.
type direct struct {
	f      *os.File
	size   int64
	sector int
}

func openDirect(path string, o Options, flags int) (*os.File, error) {
	mode := os.O_RDWR
	if o.ReadOnly {
		mode = os.O_RDONLY
	}
	f, err := os.OpenFile(path, mode|flags, 0)
	if errors.Is(err, unix.EINVAL) && flags&unix.O_DIRECT != 0 {
		return nil, fmt.Errorf("%w (it does not support O_DIRECT, and without it writes would stay in this host's page cache)", err)
	}
	return f, err
}

// ReadAt implements io.ReaderAt.
func (d *direct) ReadAt(p []byte, off int64) (int, error) { return d.f.ReadAt(p, off) }

// WriteAt implements io.WriterAt.
func (d *direct) WriteAt(p []byte, off int64) (int, error) { return d.f.WriteAt(p, off) }

// Flush is fdatasync(2), which passes through to the device's own cache.
func (d *direct) Flush() error {
	return retry(d.f, "flush", unix.Fdatasync)
}

// Discard punches a hole: for a block device the kernel unmaps the range if
// the device can read it back as zeroes (blkdev_fallocate in block/fops.c).
func (d *direct) Discard(off, n int64) error {
	err := retry(d.f, "discard", func(fd int) error {
		return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	})
	if errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	}
	return err
}

// Size returns the length in bytes when the disk was opened.
func (d *direct) Size() int64 { return d.size }

// SectorSize returns the logical sector size.
func (d *direct) SectorSize() int { return d.sector }

// Close closes the device or file.
func (d *direct) Close() error { return d.f.Close() }

// retry calls fn with the file's descriptor until it is not interrupted.
func retry(f *os.File, op string, fn func(fd int) error) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var opErr error
	err = c.Control(func(fd uintptr) {
		for {
			if opErr = fn(int(fd)); opErr != unix.EINTR {
				return
			}
		}
	})
	if err == nil && opErr != nil {
		err = &fs.PathError{Op: op, Path: f.Name(), Err: opErr}
	}
	return err
}
