// SPDX-License-Identifier: Apache-2.0

// Package foreignmem maps the memory of other domains through Linux's
// /dev/xen/privcmd (tools/libs/foreignmemory/linux.c).
//
// A mapping may have holes: pages whose gfn had no memory behind it. Err tells
// them; touching one raises SIGBUS, which Go cannot recover from. Mapped pages
// belong to the other domain and can change at any instant: copy what is to be
// judged out once (CopyPage) and judge the copy. The kernel cannot pin such
// pages either, so they are of no use to direct I/O or zero-copy sends.
//
// The kernel gives up pages of privcmd only with the whole area (VMA) that they
// lie in: it refuses to split one (privcmd_may_split() in
// drivers/xen/privcmd.c), to map over a present page, and MADV_DONTNEED. A
// mapping is therefore made of many areas, and Remap replaces whole ones.
package foreignmem

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/internal/sys"
)

const device = "/dev/xen/privcmd"

// ErrHole is matched by errors about single pages that could not be mapped.
var ErrHole = errors.New("no memory behind the gfn")

// kernel is what the package needs of privcmd; tests put a model in its place.
type kernel interface {
	// reserve takes address space.
	reserve(length int) ([]byte, syscall.Errno)
	// renew makes b, reserved space or one whole area, a fresh area.
	renew(b []byte, writable bool) syscall.Errno
	unmap(b []byte) syscall.Errno
	mmapBatch(arg *abi.PrivcmdMmapBatchV2) syscall.Errno
	mmapResource(arg *abi.PrivcmdMmapResource) syscall.Errno
	close() error
}

// An area has areaPages pages, or as many as leave a process most of the areas
// that it may have (vm.max_map_count, 65530 by default). Fewer pages make Remap
// cheaper.
const (
	areaPages = 256
	maxAreas  = 16384
)

// Handle maps memory. Its methods may be called concurrently.
type Handle struct {
	k    kernel
	area int // least number of pages in an area

	mu     sync.RWMutex // held for reading around each use of k
	closed bool
}

// Open opens the privileged command device.
func Open() (*Handle, error) {
	fd, err := sys.Open(device)
	if err != nil {
		return nil, fmt.Errorf("foreignmem: %w (is this dom0, with xen-privcmd loaded?)", err)
	}
	return &Handle{k: privcmd(fd), area: areaPages}, nil
}

// Close closes the device. Mappings stay valid, but can no longer be remapped.
func (h *Handle) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return fmt.Errorf("foreignmem: close: %w", os.ErrClosed)
	}
	h.closed = true
	return h.k.close()
}

// Mapping is a run of pages of another domain. Its methods must not be called
// concurrently with Remap or Close.
type Mapping struct {
	h        *Handle
	dom      abi.DomID
	writable bool
	mem      []byte
	area     int       // pages in each area but the last
	gfns     []abi.GFN // nil for a resource
	errs     []int32   // 0 or -errno, by page; nil for a resource
}

// Map maps gfns of dom in that order. Pages that cannot be mapped become holes;
// Map fails only if the whole operation does.
func (h *Handle) Map(dom abi.DomID, gfns []abi.GFN, writable bool) (*Mapping, error) {
	if len(gfns) == 0 {
		return nil, fmt.Errorf("foreignmem: mapping no pages of %s", dom)
	}
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.closed {
		return nil, fmt.Errorf("foreignmem: map: %w", os.ErrClosed)
	}
	mem, errno := h.k.reserve(len(gfns) * abi.PageSize)
	if errno != 0 {
		return nil, &Error{Op: "reserving address space", Dom: dom, Pages: len(gfns), Errno: errno}
	}
	m := &Mapping{
		h: h, dom: dom, writable: writable, mem: mem,
		area: max(h.area, (len(gfns)+maxAreas-1)/maxAreas),
		gfns: slices.Clone(gfns),
		errs: make([]int32, len(gfns)),
	}
	for lo := 0; lo < len(gfns); lo += m.area {
		if err := m.fill(lo, min(lo+m.area, len(gfns))); err != nil {
			h.k.unmap(mem)
			return nil, err
		}
	}
	return m, nil
}

// fill replaces the area of pages [lo, hi) by a fresh one. If that fails they
// are holes.
func (m *Mapping) fill(lo, hi int) error {
	b := m.mem[lo*abi.PageSize : hi*abi.PageSize]
	if errno := m.h.k.renew(b, m.writable); errno != 0 {
		// A failed MAP_FIXED may already have removed the old pages.
		m.markHoles(lo, hi)
		return &Error{Op: "reserving address space (see vm.max_map_count)", Dom: m.dom,
			Pages: hi - lo, First: m.gfns[lo], Errno: errno}
	}
	if err := m.batch(lo, hi); err != nil {
		// Some may be mapped: drop them, so that a hole is a hole.
		m.h.k.renew(b, m.writable)
		m.markHoles(lo, hi)
		return err
	}
	return nil
}

// batch maps pages [lo, hi), none of which is mapped at present.
func (m *Mapping) batch(lo, hi int) error {
	errno := m.mmapBatch(lo, hi)
	// ENOENT: some pages are paged out. The kernel accepts further calls for
	// the runs that are still missing; see retry_paged() in
	// tools/libs/foreignmemory/linux.c.
	for i := 0; errno == syscall.ENOENT && i < 10000; i++ {
		time.Sleep(100 * time.Microsecond)
		errno = 0
		for a := lo; a < hi; {
			if m.errs[a] != -int32(syscall.ENOENT) {
				a++
				continue
			}
			b := a + 1
			for b < hi && m.errs[b] == -int32(syscall.ENOENT) {
				b++
			}
			if e := m.mmapBatch(a, b); e != 0 {
				errno = e
			}
			a = b
		}
	}
	if errno != 0 && errno != syscall.ENOENT {
		return &Error{Op: "mapping", Dom: m.dom, Pages: hi - lo, First: m.gfns[lo], Errno: errno}
	}
	return nil
}

func (m *Mapping) mmapBatch(lo, hi int) syscall.Errno {
	arg := abi.PrivcmdMmapBatchV2{
		Num:  uint32(hi - lo),
		Dom:  m.dom,
		Addr: uint64(uintptr(unsafe.Pointer(&m.mem[lo*abi.PageSize]))),
		Arr:  &m.gfns[lo],
		Err:  &m.errs[lo],
	}
	return m.h.k.mmapBatch(&arg)
}

// Remap makes pages i, i+1, ... of the mapping show gfns, which may be the same
// as before: the kernel resolves a gfn once, so a page whose p2m entry changed
// has to be mapped again. Pages that cannot be mapped become holes.
//
// The pages around, 256 or more, may be mapped again together with these, and
// nobody may read or write them meanwhile. If Remap itself fails some pages,
// also of those around, are holes; another Remap of them may mend that.
func (m *Mapping) Remap(i int, gfns ...abi.GFN) error {
	if m.gfns == nil || i < 0 || len(gfns) == 0 || len(gfns) > len(m.gfns)-i {
		return fmt.Errorf("foreignmem: remapping pages %d..%d of a mapping of %d pages of %s",
			i, i+len(gfns)-1, m.Len(), m.dom)
	}
	m.h.mu.RLock()
	defer m.h.mu.RUnlock()
	if m.h.closed {
		return fmt.Errorf("foreignmem: remap: %w", os.ErrClosed)
	}
	end := i + len(gfns)
	copy(m.gfns[i:], gfns)
	var errs []error
	for lo := i - i%m.area; lo < end; lo += m.area {
		hi := min(lo+m.area, len(m.gfns))
		a, b := max(i, lo), min(end, hi)
		if m.fillable(a, b) && m.batch(a, b) == nil {
			continue
		}
		if err := m.fill(lo, hi); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Refresh is Remap of single pages, in ascending order, to the gfns that they
// have. It maps no area more than once.
func (m *Mapping) Refresh(pages ...int) error {
	for j, i := range pages {
		if m.gfns == nil || i < 0 || i >= len(m.gfns) || j > 0 && i < pages[j-1] {
			return fmt.Errorf("foreignmem: mapping page %d of a mapping of %d pages of %s again, out of order or range",
				i, m.Len(), m.dom)
		}
	}
	m.h.mu.RLock()
	defer m.h.mu.RUnlock()
	if m.h.closed {
		return fmt.Errorf("foreignmem: remap: %w", os.ErrClosed)
	}
	var errs []error
	for filled := 0; len(pages) > 0; pages = pages[1:] {
		i := pages[0]
		if i < filled || m.fillable(i, i+1) && m.batch(i, i+1) == nil {
			continue
		}
		lo := i - i%m.area
		filled = min(lo+m.area, len(m.gfns))
		if err := m.fill(lo, filled); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// fillable tells whether the kernel accepts pages [lo, hi) as they are: as
// holes of an area that is in use.
func (m *Mapping) fillable(lo, hi int) bool {
	for _, err := range m.errs[lo:hi] {
		if err == 0 || err == noArea {
			return false
		}
	}
	return true
}

// noArea marks holes which a failure left behind: there may be no area, or one
// that the kernel wants to see filled as a whole.
const noArea = -int32(syscall.EFAULT)

func (m *Mapping) markHoles(lo, hi int) {
	for i := lo; i < hi; i++ {
		m.errs[i] = noArea
	}
}

// MapResource maps nr frames of a resource of dom, from frame on
// (XENMEM_acquire_resource; abi.Resource*). It has no holes.
func (h *Handle) MapResource(dom abi.DomID, typ, id uint32, frame, nr uint64, writable bool) (*Mapping, error) {
	if nr == 0 || nr > 1<<20 || frame > 1<<32-1 {
		return nil, fmt.Errorf("foreignmem: resource %d of %s: bad range of %d frames at %d", typ, dom, nr, frame)
	}
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.closed {
		return nil, fmt.Errorf("foreignmem: map resource: %w", os.ErrClosed)
	}
	op := fmt.Sprintf("mapping resource %d id %d", typ, id)
	mem, errno := h.k.reserve(int(nr) * abi.PageSize)
	if errno != 0 {
		return nil, &Error{Op: op, Dom: dom, Pages: int(nr), Errno: errno}
	}
	if errno := h.k.renew(mem, writable); errno != 0 {
		h.k.unmap(mem)
		return nil, &Error{Op: op, Dom: dom, Pages: int(nr), Errno: errno}
	}
	arg := abi.PrivcmdMmapResource{Dom: dom, Type: typ, ID: id, Idx: uint32(frame), Num: nr,
		Addr: uint64(uintptr(unsafe.Pointer(&mem[0])))}
	if errno := h.k.mmapResource(&arg); errno != 0 {
		h.k.unmap(mem)
		return nil, &Error{Op: op, Dom: dom, Pages: int(nr), Errno: errno}
	}
	return &Mapping{h: h, dom: dom, writable: writable, mem: mem}, nil
}

// ResourceSize returns the size in frames of a resource of dom.
func (h *Handle) ResourceSize(dom abi.DomID, typ, id uint32) (uint64, error) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.closed {
		return 0, fmt.Errorf("foreignmem: resource size: %w", os.ErrClosed)
	}
	arg := abi.PrivcmdMmapResource{Dom: dom, Type: typ, ID: id}
	if errno := h.k.mmapResource(&arg); errno != 0 {
		return 0, &Error{Op: fmt.Sprintf("asking for the size of resource %d id %d", typ, id), Dom: dom, Errno: errno}
	}
	return arg.Num, nil
}

// privcmd is the descriptor of the device.
type privcmd int

func (p privcmd) reserve(length int) ([]byte, syscall.Errno) { return sys.Reserve(length) }

func (p privcmd) renew(b []byte, writable bool) syscall.Errno { return sys.Remap(int(p), b, writable) }

func (p privcmd) unmap(b []byte) syscall.Errno { return sys.Unmap(b) }

func (p privcmd) mmapBatch(arg *abi.PrivcmdMmapBatchV2) syscall.Errno {
	_, errno := sys.Ioctl(int(p), abi.IoctlPrivcmdMmapBatchV2, unsafe.Pointer(arg))
	return errno
}

func (p privcmd) mmapResource(arg *abi.PrivcmdMmapResource) syscall.Errno {
	_, errno := sys.Ioctl(int(p), abi.IoctlPrivcmdMmapResource, unsafe.Pointer(arg))
	return errno
}

func (p privcmd) close() error { return sys.Close(int(p)) }
