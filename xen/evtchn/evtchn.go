// SPDX-License-Identifier: Apache-2.0

// Package evtchn binds, sends and receives event channels through Linux's
// /dev/xen/evtchn (tools/include/xen-sys/Linux/evtchn.h).
//
// The kernel masks a port when its event is queued for the reader; the port
// stays silent until Unmask. An event that arrives in between is not lost: it
// is delivered at Unmask.
package evtchn

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/internal/sys"
)

const device = "/dev/xen/evtchn"

// ErrOverflow is returned by Wait when the kernel dropped events because its
// queue was full. Every bound port has to be treated as pending; the queue has
// been reset.
var ErrOverflow = errors.New("evtchn: event queue overflowed, events were lost")

// Error is a failed operation. errors.Is matches its Errno.
type Error struct {
	Op    string
	Dom   abi.DomID // meaningful for bind operations only
	Port  abi.Port
	Errno syscall.Errno
}

func (e *Error) Error() string {
	switch e.Op {
	case opBindInterdomain:
		return fmt.Sprintf("evtchn: binding port %d of %s: %s", e.Port, e.Dom, sys.Describe(e.Errno))
	case opBindUnbound:
		return fmt.Sprintf("evtchn: allocating a port for %s: %s", e.Dom, sys.Describe(e.Errno))
	}
	return fmt.Sprintf("evtchn: %s of port %d: %s", e.Op, e.Port, sys.Describe(e.Errno))
}

// Unwrap returns the errno.
func (e *Error) Unwrap() error { return e.Errno }

const (
	opBindInterdomain = "bind interdomain"
	opBindUnbound     = "bind unbound"
)

// Handle owns a set of local ports. Its methods may be called concurrently; use
// one goroutine for Wait. Closing it closes the ports.
type Handle struct {
	file *os.File
	fd   int

	mu     sync.RWMutex // held for reading around each ioctl on fd
	closed bool

	readMu sync.Mutex // one reader at a time; protects raw
	raw    [abi.PageSize / 4]abi.Port
}

// Open opens the event channel device.
func Open() (*Handle, error) {
	f, err := sys.OpenFile(device)
	if err != nil {
		return nil, fmt.Errorf("evtchn: %w (is this dom0, with xen-evtchn loaded?)", err)
	}
	return newHandle(f), nil
}

func newHandle(f *os.File) *Handle {
	// Fd() would put the file back into blocking mode; SyscallConn does not.
	h := &Handle{file: f, fd: -1}
	if c, err := f.SyscallConn(); err == nil {
		_ = c.Control(func(fd uintptr) { h.fd = int(fd) })
	}
	return h
}

// Close closes all ports of the handle. A blocked Wait returns os.ErrClosed.
func (h *Handle) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return fmt.Errorf("evtchn: close: %w", os.ErrClosed)
	}
	h.closed = true
	return h.file.Close()
}

func (h *Handle) ioctl(req uintptr, arg unsafe.Pointer) (int64, syscall.Errno) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.closed {
		return -1, syscall.EBADF
	}
	return sys.Ioctl(h.fd, req, arg)
}

// BindInterdomain binds a new local port to port remote of domain dom.
func (h *Handle) BindInterdomain(dom abi.DomID, remote abi.Port) (abi.Port, error) {
	arg := abi.EvtchnBindInterdomain{RemoteDomain: uint32(dom), RemotePort: remote}
	r, errno := h.ioctl(abi.IoctlEvtchnBindInterdomain, unsafe.Pointer(&arg))
	if errno != 0 {
		return 0, &Error{Op: opBindInterdomain, Dom: dom, Port: remote, Errno: errno}
	}
	return abi.Port(r), nil
}

// BindUnbound allocates a local port which domain dom may bind to.
func (h *Handle) BindUnbound(dom abi.DomID) (abi.Port, error) {
	arg := uint32(dom)
	r, errno := h.ioctl(abi.IoctlEvtchnBindUnboundPort, unsafe.Pointer(&arg))
	if errno != 0 {
		return 0, &Error{Op: opBindUnbound, Dom: dom, Errno: errno}
	}
	return abi.Port(r), nil
}

// Unbind closes a local port.
func (h *Handle) Unbind(p abi.Port) error {
	_, errno := h.ioctl(abi.IoctlEvtchnUnbind, unsafe.Pointer(&p))
	return portErr("unbind", p, errno)
}

// Notify sends an event through a local port.
func (h *Handle) Notify(p abi.Port) error {
	_, errno := h.ioctl(abi.IoctlEvtchnNotify, unsafe.Pointer(&p))
	return portErr("notify", p, errno)
}

func portErr(op string, p abi.Port, errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return &Error{Op: op, Port: p, Errno: errno}
}

// Wait blocks until ports are pending, fills buf with them, and returns how
// many. They are masked until Unmask. Ports beyond len(buf), at most a page of
// which is read at a time, are returned by the next call.
func (h *Handle) Wait(buf []abi.Port) (int, error) {
	const size = int(unsafe.Sizeof(abi.Port(0)))
	if len(buf) == 0 {
		return 0, nil
	}
	h.readMu.Lock()
	defer h.readMu.Unlock()
	raw := unsafe.Slice((*byte)(unsafe.Pointer(&h.raw)), min(len(buf), len(h.raw))*size)
	n, err := h.file.Read(raw)
	if err != nil {
		if errors.Is(err, syscall.EFBIG) {
			return 0, h.reset()
		}
		return 0, fmt.Errorf("evtchn: waiting for events: %w", err)
	}
	// evtchn_read() in the kernel returns whole ports only.
	return copy(buf, h.raw[:n/size]), nil
}

func (h *Handle) reset() error {
	if _, errno := h.ioctl(abi.IoctlEvtchnReset, nil); errno != 0 {
		return errors.Join(ErrOverflow, portErr("reset", 0, errno))
	}
	return ErrOverflow
}

// Unmask lets the given ports deliver events again.
func (h *Handle) Unmask(ports ...abi.Port) error {
	for len(ports) > 0 {
		n := min(len(ports), abi.PageSize/4) // evtchn_write() takes a page at most
		b := unsafe.Slice((*byte)(unsafe.Pointer(&ports[0])), n*4)
		if _, err := h.file.Write(b); err != nil {
			return fmt.Errorf("evtchn: unmasking %d ports from port %d on: %w", n, ports[0], err)
		}
		ports = ports[n:]
	}
	return nil
}
