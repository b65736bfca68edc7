// SPDX-License-Identifier: Apache-2.0

// Package gntdev maps and copies pages which other domains have granted, through
// Linux's /dev/xen/gntdev (tools/include/xen-sys/Linux/gntdev.h,
// tools/libs/gnttab/linux.c).
//
// A mapped page belongs to the other domain and can change at any instant: copy
// what is to be judged out once (CopyOut) and judge the copy.
package gntdev

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/internal/sys"
)

const device = "/dev/xen/gntdev"

// Device maps and copies grants. Its methods may be called concurrently.
type Device struct {
	fd int

	mu     sync.RWMutex // held for reading around each system call on fd
	closed bool

	copyMu sync.Mutex // protects the scratch space of Copy
	segs   []abi.GntdevCopySegment
	pins   []*byte
	one    abi.GntdevGrantCopy
}

// Open opens the grant device.
func Open() (*Device, error) {
	fd, err := sys.Open(device)
	if err != nil {
		return nil, fmt.Errorf("gntdev: %w (is this dom0, with xen-gntdev loaded?)", err)
	}
	return &Device{fd: fd}, nil
}

// Close closes the device. Mappings stay valid until they are closed.
func (d *Device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return fmt.Errorf("gntdev: close: %w", os.ErrClosed)
	}
	d.closed = true
	return sys.Close(d.fd)
}

// Mapping is a run of granted pages in the address space of the process.
type Mapping struct {
	d     *Device
	index uint64
	mem   []byte
}

// Map maps the pages that domain dom granted under refs, in that order. It maps
// all or none; the kernel does not tell which reference was refused.
func (d *Device) Map(dom abi.DomID, refs []abi.GrantRef, writable bool) (*Mapping, error) {
	if len(refs) == 0 {
		return nil, fmt.Errorf("gntdev: mapping no grants of %s", dom)
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.closed {
		return nil, fmt.Errorf("gntdev: map: %w", os.ErrClosed)
	}

	// The header ends with the first reference; the others follow it.
	const head = unsafe.Offsetof(abi.GntdevMapGrantRef{}.Refs) / 8
	arg := make([]uint64, int(head)+len(refs))
	req := (*abi.GntdevMapGrantRef)(unsafe.Pointer(&arg[0]))
	req.Count = uint32(len(refs))
	list := unsafe.Slice((*abi.GntdevGrantRef)(unsafe.Pointer(&arg[head])), len(refs))
	for i, ref := range refs {
		list[i] = abi.GntdevGrantRef{DomID: uint32(dom), Ref: ref}
	}
	if _, errno := sys.Ioctl(d.fd, abi.IoctlGntdevMapGrantRef, unsafe.Pointer(&arg[0])); errno != 0 {
		return nil, &MapError{Dom: dom, Refs: refs, Errno: errno}
	}

	mem, errno := sys.Map(d.fd, int64(req.Index), len(refs)*abi.PageSize, writable)
	// EAGAIN: a granted page is paged out and there is no notification; see
	// osdep_gnttab_grant_map() in tools/libs/gnttab/linux.c, which waits
	// without bound. Here the caller gets to decide after a second.
	for i := 0; errno == syscall.EAGAIN && i < 1000; i++ {
		time.Sleep(time.Millisecond)
		mem, errno = sys.Map(d.fd, int64(req.Index), len(refs)*abi.PageSize, writable)
	}
	if errno != 0 {
		d.release(req.Index, len(refs))
		return nil, &MapError{Dom: dom, Refs: refs, Errno: errno}
	}
	return &Mapping{d: d, index: req.Index, mem: mem}, nil
}

// release frees the driver's slots of a mapping.
func (d *Device) release(index uint64, count int) syscall.Errno {
	arg := abi.GntdevUnmapGrantRef{Index: index, Count: uint32(count)}
	_, errno := sys.Ioctl(d.fd, abi.IoctlGntdevUnmapGrantRef, unsafe.Pointer(&arg))
	return errno
}

// Bytes is the mapped memory. It must not be touched after Close.
func (m *Mapping) Bytes() []byte { return m.mem }

// CopyOut copies len(dst) bytes at off out of the mapping, each byte once.
func (m *Mapping) CopyOut(dst []byte, off int) error {
	if off < 0 || off > len(m.mem) || len(dst) > len(m.mem)-off {
		return fmt.Errorf("gntdev: copy of %d bytes at %d from a mapping of %d", len(dst), off, len(m.mem))
	}
	copy(dst, m.mem[off:])
	return nil
}

// Close unmaps the pages.
func (m *Mapping) Close() error {
	if m.mem == nil {
		return fmt.Errorf("gntdev: unmap: %w", os.ErrClosed)
	}
	n := len(m.mem) / abi.PageSize
	errno := sys.Unmap(m.mem)
	m.mem = nil
	if errno != 0 {
		return fmt.Errorf("gntdev: unmapping %d pages: %w", n, errno)
	}
	m.d.mu.RLock()
	defer m.d.mu.RUnlock()
	if m.d.closed {
		return nil // closing the device released the slots
	}
	if errno := m.d.release(m.index, n); errno != 0 {
		return fmt.Errorf("gntdev: releasing %d grants: %w", n, errno)
	}
	return nil
}
