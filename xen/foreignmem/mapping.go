// SPDX-License-Identifier: Apache-2.0

package foreignmem

import (
	"fmt"
	"os"
	"syscall"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/internal/sys"
)

// FromBytes returns a hole-free Mapping over mem, whose length must be a
// multiple of the page size, for tests of code that reads mappings.
func FromBytes(mem []byte) *Mapping {
	if len(mem)%abi.PageSize != 0 {
		panic("foreignmem: FromBytes: not whole pages")
	}
	return &Mapping{mem: mem, writable: true}
}

// Len is the number of pages.
func (m *Mapping) Len() int { return len(m.mem) / abi.PageSize }

// GFN is the gfn that page i was mapped from.
func (m *Mapping) GFN(i int) abi.GFN {
	if m.gfns == nil {
		return abi.InvalidGFN
	}
	return m.gfns[i]
}

// Err tells whether page i is a hole: nil, or a *PageError.
func (m *Mapping) Err(i int) error {
	if m.errs == nil || m.errs[i] == 0 {
		return nil
	}
	return &PageError{Dom: m.dom, GFN: m.gfns[i], Errno: syscall.Errno(-m.errs[i])}
}

// Present is Err(i) == nil, without allocating.
func (m *Mapping) Present(i int) bool { return m.errs == nil || m.errs[i] == 0 }

// Page is the memory of page i, or nil if it is a hole.
func (m *Mapping) Page(i int) []byte {
	if !m.Present(i) {
		return nil
	}
	lo := i * abi.PageSize
	return m.mem[lo : lo+abi.PageSize : lo+abi.PageSize]
}

// Bytes is the whole mapping, holes included.
func (m *Mapping) Bytes() []byte { return m.mem }

// CopyPage copies page i to dst, each byte once. It reports false, and copies
// nothing, if the page is a hole.
func (m *Mapping) CopyPage(dst *[abi.PageSize]byte, i int) bool {
	p := m.Page(i)
	if p == nil {
		return false
	}
	copy(dst[:], p)
	return true
}

// Close unmaps the pages.
func (m *Mapping) Close() error {
	if m.mem == nil {
		return fmt.Errorf("foreignmem: unmap: %w", os.ErrClosed)
	}
	mem := m.mem
	m.mem, m.gfns, m.errs = nil, nil, nil
	if m.h == nil {
		return nil // FromBytes
	}
	if errno := m.h.k.unmap(mem); errno != 0 {
		return &Error{Op: "unmapping", Dom: m.dom, Pages: len(mem) / abi.PageSize, Errno: errno}
	}
	return nil
}

// Error is a failed operation on a range of pages; errors.Is matches its Errno.
type Error struct {
	Op    string
	Dom   abi.DomID
	Pages int
	First abi.GFN
	Errno syscall.Errno
}

func (e *Error) Error() string {
	return fmt.Sprintf("foreignmem: %s, %d pages of %s from gfn %#x on: %s",
		e.Op, e.Pages, e.Dom, uint64(e.First), sys.Describe(e.Errno))
}

// Unwrap returns the errno.
func (e *Error) Unwrap() error { return e.Errno }

// PageError is one page that could not be mapped; errors.Is matches ErrHole and
// its Errno.
type PageError struct {
	Dom   abi.DomID
	GFN   abi.GFN
	Errno syscall.Errno
}

func (e *PageError) Error() string {
	return fmt.Sprintf("foreignmem: gfn %#x of %s: %s", uint64(e.GFN), e.Dom, sys.Describe(e.Errno))
}

// Unwrap returns what the error is.
func (e *PageError) Unwrap() []error { return []error{ErrHole, e.Errno} }
