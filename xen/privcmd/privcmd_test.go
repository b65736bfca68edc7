// SPDX-License-Identifier: Apache-2.0

package privcmd

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/internal/sys"
)

func TestHypercallPassesArguments(t *testing.T) {
	h := Simulated(func(op uint64, a [5]uint64) (int64, syscall.Errno) {
		if op != abi.HypervisorMemoryOp || a != [5]uint64{14, 7} {
			t.Errorf("op %d args %v", op, a)
		}
		return 42, 0
	})
	if r, err := h.Hypercall(abi.HypervisorMemoryOp, 14, 7); r != 42 || err != nil {
		t.Errorf("got %d, %v", r, err)
	}
	if _, err := h.Hypercall(0, 1, 2, 3, 4, 5, 6); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("six arguments: %v", err)
	}
	if n := h.Calls(); n != 1 {
		t.Errorf("%d hypercalls were counted, one was issued", n)
	}
}

func TestErrorKeepsErrno(t *testing.T) {
	h := Simulated(func(uint64, [5]uint64) (int64, syscall.Errno) { return -1, syscall.EBUSY })
	_, err := h.Hypercall(abi.HypervisorDomctl, 0)
	if !errors.Is(err, syscall.EBUSY) {
		t.Errorf("errors.Is(%v, EBUSY) is false", err)
	}
	if err == error(syscall.EBUSY) {
		t.Error("the errno is not wrapped")
	}
	if !strings.Contains(err.Error(), "domctl") || !strings.Contains(err.Error(), "EBUSY") {
		t.Errorf("message %q names neither the hypercall nor the errno", err)
	}
}

func TestBuffersAreReusedAndZeroed(t *testing.T) {
	h := Simulated(nil)
	b, err := h.Alloc(100)
	if err != nil {
		t.Fatal(err)
	}
	if len(b.Bytes()) != 100 || b.Addr()%abi.PageSize != 0 {
		t.Errorf("%d bytes at %#x", len(b.Bytes()), b.Addr())
	}
	addr := b.Addr()
	copy(b.Bytes(), "secret")
	if err := b.Free(); err != nil {
		t.Fatal(err)
	}
	if err := b.Free(); err == nil {
		t.Error("freeing twice succeeded")
	}
	b, _ = h.Alloc(200)
	if b.Addr() != addr {
		t.Error("the buffer was not reused")
	}
	if b.Bytes()[0] != 0 {
		t.Error("a reused buffer holds old contents")
	}
	var all []*Buffer
	for range 3 * maxKept {
		b, err := h.Alloc(abi.PageSize)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	for _, b := range all {
		if err := b.Free(); err != nil {
			t.Fatal(err)
		}
	}
	if len(h.kept) > maxKept {
		t.Errorf("%d buffers are kept", len(h.kept))
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Alloc(1); !errors.Is(err, os.ErrClosed) {
		t.Errorf("alloc after close: %v", err)
	}
	if err := b.Free(); err != nil {
		t.Errorf("free after close: %v", err)
	}
}

func TestAtIsBounded(t *testing.T) {
	h := Simulated(nil)
	b, _ := h.Alloc(abi.PageSize)
	if h.At(b.Addr(), abi.PageSize) == nil {
		t.Error("the whole buffer is out of bounds")
	}
	for _, c := range []struct {
		addr uint64
		n    int
	}{{b.Addr(), abi.PageSize + 1}, {b.Addr() + 1, abi.PageSize}, {b.Addr() - 1, 1}, {0, 1}, {b.Addr() + abi.PageSize + 1, 0}} {
		if h.At(c.addr, c.n) != nil {
			t.Errorf("At(%#x, %d) is in a buffer at %#x", c.addr, c.n, b.Addr())
		}
	}
}

// TestCallDoesNotAllocate goes through the real ioctl, on a device that refuses
// it.
func TestCallDoesNotAllocate(t *testing.T) {
	fd, err := sys.Open("/dev/null")
	if err != nil {
		t.Skip(err)
	}
	defer sys.Close(fd)
	h := &Handle{fd: fd}
	if n := testing.AllocsPerRun(100, func() {
		if _, errno := h.Call(abi.HypervisorDomctl, 1, 2, 3); errno != syscall.ENOTTY {
			t.Fatal(errno)
		}
	}); n != 0 {
		t.Errorf("a hypercall allocates %v times", n)
	}
}
