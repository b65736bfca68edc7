// SPDX-License-Identifier: Apache-2.0

// Package privcmd issues hypercalls from a privileged Linux domain through
// /dev/xen/privcmd, and provides the memory that they may point at.
//
// Xen reads and writes hypercall arguments through the caller's page tables and
// fails with EFAULT where a page is not present, which the kernel can bring
// about at any time for ordinary memory. Pages of /dev/xen/hypercall are never
// moved or unmapped by the kernel (drivers/xen/privcmd-buf.c; compare
// tools/libs/call/linux.c). Arguments must therefore lie in a Buffer.
package privcmd

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/internal/sys"
)

// Device nodes. See tools/libs/call/linux.c.
const (
	devPrivcmd   = "/dev/xen/privcmd"
	devHypercall = "/dev/xen/hypercall"
)

// Freed buffers up to maxKeptPages each, at most maxKept of them, are kept for
// the next Alloc.
const (
	maxKept      = 8
	maxKeptPages = 16
)

// Handle issues hypercalls. Its methods may be called concurrently.
type Handle struct {
	fd, bufFD int
	simulate  func(op uint64, args [5]uint64) (int64, syscall.Errno)
	calls     atomic.Uint64

	mu     sync.Mutex // protects what follows
	kept   []*Buffer
	live   map[*Buffer]struct{}
	closed bool
}

// Open opens the hypercall devices.
func Open() (*Handle, error) {
	fd, err := sys.Open(devPrivcmd)
	if err != nil {
		return nil, fmt.Errorf("privcmd: %w (is this dom0, with xen-privcmd loaded?)", err)
	}
	bufFD, err := sys.Open(devHypercall)
	if err != nil {
		sys.Close(fd)
		return nil, fmt.Errorf("privcmd: %w (needs Linux 4.18 or newer)", err)
	}
	return &Handle{fd: fd, bufFD: bufFD, live: make(map[*Buffer]struct{})}, nil
}

// Simulated returns a Handle whose hypercalls are answered by call, or by ENOSYS
// if it is nil, for tests of code above this package. At gives such a call
// access to its arguments.
func Simulated(call func(op uint64, args [5]uint64) (int64, syscall.Errno)) *Handle {
	if call == nil {
		call = func(uint64, [5]uint64) (int64, syscall.Errno) { return -1, syscall.ENOSYS }
	}
	return &Handle{fd: -1, bufFD: -1, simulate: call, live: make(map[*Buffer]struct{})}
}

// Close closes the devices and releases the kept buffers. Buffers in use stay
// valid until they are freed. No hypercall may be under way: Call takes no lock,
// so as to cost nothing in a pause.
func (h *Handle) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return fmt.Errorf("privcmd: close: %w", os.ErrClosed)
	}
	h.closed = true
	for _, b := range h.kept {
		sys.Unmap(b.mem)
	}
	h.kept = nil
	if h.simulate != nil {
		return nil
	}
	err := sys.Close(h.fd)
	if err2 := sys.Close(h.bufFD); err == nil {
		err = err2
	}
	return err
}

// Hypercall issues hypercall op with up to five arguments. Pointers among them
// are Addr()s of Buffers. A negative result of Xen comes back as *Error. A
// hypercall that succeeds allocates nothing.
func (h *Handle) Hypercall(op uint64, args ...uint64) (int64, error) {
	r, errno := h.Call(op, args...)
	if errno != 0 {
		return -1, &Error{Op: op, Errno: errno}
	}
	return r, nil
}

// Call is Hypercall with a bare errno, for packages which add the context that
// their own errors carry.
func (h *Handle) Call(op uint64, args ...uint64) (int64, syscall.Errno) {
	hc := abi.PrivcmdHypercall{Op: op}
	if copy(hc.Arg[:], args) != len(args) {
		return -1, syscall.EINVAL
	}
	h.calls.Add(1)
	if h.simulate != nil {
		return h.simulate(op, hc.Arg)
	}
	r, errno := sys.Ioctl(h.fd, abi.IoctlPrivcmdHypercall, unsafe.Pointer(&hc))
	if errno != 0 {
		return -1, errno
	}
	return r, 0
}

// Calls is how many hypercalls have been issued so far, by whomever. Those that
// the kernel issues for an ioctl of another device are not among them.
func (h *Handle) Calls() uint64 { return h.calls.Load() }

// Buffer is zeroed, page aligned memory that hypercalls can access.
type Buffer struct {
	h   *Handle
	mem []byte
	n   int
}

// Alloc returns a buffer of n bytes.
func (h *Handle) Alloc(n int) (*Buffer, error) {
	if n <= 0 {
		return nil, fmt.Errorf("privcmd: alloc of %d bytes", n)
	}
	size := (n + abi.PageSize - 1) &^ (abi.PageSize - 1)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, fmt.Errorf("privcmd: alloc: %w", os.ErrClosed)
	}
	for i, b := range h.kept {
		if len(b.mem) == size {
			h.kept = append(h.kept[:i], h.kept[i+1:]...)
			clear(b.mem)
			b.n = n
			h.live[b] = struct{}{}
			return b, nil
		}
	}
	var mem []byte
	var errno syscall.Errno
	if h.simulate != nil {
		mem, errno = sys.MapAnon(size)
	} else {
		mem, errno = sys.Map(h.bufFD, 0, size, true)
	}
	if errno != 0 {
		return nil, fmt.Errorf("privcmd: mapping %d bytes of %s: %w", size, devHypercall, errno)
	}
	b := &Buffer{h: h, mem: mem, n: n}
	h.live[b] = struct{}{}
	return b, nil
}

// Bytes is the buffer's memory.
func (b *Buffer) Bytes() []byte { return b.mem[:b.n] }

// Addr is the buffer's address, to be passed to a hypercall.
func (b *Buffer) Addr() uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b.mem)))) }

// Free gives the buffer back. It must not be used afterwards.
func (b *Buffer) Free() error {
	h := b.h
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.live[b]; !ok {
		return fmt.Errorf("privcmd: buffer freed twice")
	}
	delete(h.live, b)
	if !h.closed && len(h.kept) < maxKept && len(b.mem) <= maxKeptPages*abi.PageSize {
		h.kept = append(h.kept, b)
		return nil
	}
	if errno := sys.Unmap(b.mem); errno != 0 {
		return fmt.Errorf("privcmd: unmapping a hypercall buffer: %w", errno)
	}
	return nil
}

// At returns the n bytes at addr if they lie in a buffer in use, else nil. A
// simulated hypercall reads its arguments with it, as Xen would.
func (h *Handle) At(addr uint64, n int) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	for b := range h.live {
		if off := addr - b.Addr(); addr >= b.Addr() && off <= uint64(len(b.mem)) && uint64(n) <= uint64(len(b.mem))-off {
			return b.mem[off : off+uint64(n)]
		}
	}
	return nil
}

// Struct lays a T over the start of the buffer. T must be a struct of package
// abi without Go pointers.
func Struct[T any](b *Buffer) *T {
	return StructAt[T](b.mem)
}

// StructAt lays a T over the start of mem, which must be 8-byte aligned memory
// outside the Go heap. It panics if mem is too short.
func StructAt[T any](mem []byte) *T {
	var t T
	_ = mem[unsafe.Sizeof(t)-1]
	return (*T)(unsafe.Pointer(unsafe.SliceData(mem)))
}

// Slice lays n Ts over the start of mem under the same conditions.
func Slice[T any](mem []byte, n int) []T {
	var t T
	if n == 0 {
		return nil
	}
	_ = mem[n*int(unsafe.Sizeof(t))-1]
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(mem))), n)
}
