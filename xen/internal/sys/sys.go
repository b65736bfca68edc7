// SPDX-License-Identifier: Apache-2.0

// Package sys is the only place where the xen packages touch the kernel. Each
// function is one system call on one of Linux's Xen devices.
//
// Nothing here retries: privcmd hands hypercall results through as errnos, so an
// EINTR or EAGAIN may be Xen's answer to work that was already done.
package sys

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Open opens a device node read-write and close-on-exec.
func Open(path string) (int, error) {
	return open(path, 0)
}

// OpenFile opens a device node for use with the runtime's poller.
func OpenFile(path string) (*os.File, error) {
	fd, err := open(path, unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

func open(path string, flags int) (int, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// Close closes a descriptor made by Open.
func Close(fd int) error { return unix.Close(fd) }

// Ioctl issues one ioctl. The result is the driver's return value: hypercalls
// and port numbers come back that way. The kernel's vfs_ioctl narrows it to an
// int, so it is narrowed here too rather than pretending to 64 bits.
func Ioctl(fd int, req uintptr, arg unsafe.Pointer) (int64, syscall.Errno) {
	r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(arg))
	return int64(int32(r)), errno
}

// Map maps length bytes of the device at offset, shared.
func Map(fd int, offset int64, length int, writable bool) ([]byte, syscall.Errno) {
	p, err := unix.MmapPtr(fd, offset, nil, uintptr(length), prot(writable), unix.MAP_SHARED)
	if err != nil {
		return nil, errnoOf(err)
	}
	return unsafe.Slice((*byte)(p), length), 0
}

// MapAnon returns zeroed anonymous memory outside the Go heap.
func MapAnon(length int) ([]byte, syscall.Errno) {
	p, err := unix.MmapPtr(-1, 0, nil, uintptr(length), prot(true), unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, errnoOf(err)
	}
	return unsafe.Slice((*byte)(p), length), 0
}

// Reserve takes address space without memory, for Remap.
func Reserve(length int) ([]byte, syscall.Errno) {
	p, err := unix.MmapPtr(-1, 0, nil, uintptr(length), unix.PROT_NONE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, errnoOf(err)
	}
	return unsafe.Slice((*byte)(p), length), 0
}

// Remap replaces the pages under b by a fresh mapping of the device at the same
// address (MAP_FIXED drops the old pages and installs the new area in one step,
// so no other thread can be given the hole).
func Remap(fd int, b []byte, writable bool) syscall.Errno {
	_, err := unix.MmapPtr(fd, 0, unsafe.Pointer(unsafe.SliceData(b)), uintptr(len(b)),
		prot(writable), unix.MAP_SHARED|unix.MAP_FIXED)
	if err != nil {
		return errnoOf(err)
	}
	return 0
}

// Unmap undoes Map, MapAnon, Reserve, and any Remap within b.
func Unmap(b []byte) syscall.Errno {
	if err := unix.MunmapPtr(unsafe.Pointer(unsafe.SliceData(b)), uintptr(len(b))); err != nil {
		return errnoOf(err)
	}
	return 0
}

// Describe formats an errno as "EBUSY (device or resource busy)".
func Describe(e syscall.Errno) string {
	name := unix.ErrnoName(e)
	if name == "" {
		return fmt.Sprintf("errno %d", int(e))
	}
	return name + " (" + e.Error() + ")"
}

func prot(writable bool) int {
	if writable {
		return unix.PROT_READ | unix.PROT_WRITE
	}
	return unix.PROT_READ
}

func errnoOf(err error) syscall.Errno {
	if e, ok := err.(syscall.Errno); ok {
		return e
	}
	return unix.EIO
}
