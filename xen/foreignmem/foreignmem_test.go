// SPDX-License-Identifier: Apache-2.0

package foreignmem

import (
	"encoding/binary"
	"errors"
	"os"
	"syscall"
	"testing"
	"unsafe"

	"pgregory.net/rapid"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/internal/sys"
)

// model behaves as the kernel's privcmd does for a PV dom0 (see
// privcmd_ioctl_mmap_batch() in drivers/xen/privcmd.c): a batch must fill a fresh
// area exactly, or pages of one used area that are not mapped. No area is split.
// A mapped page shows the p2m entry of its gfn at that time.
type model struct {
	p2m     map[abi.GFN]uint64 // contents; absent: hole
	paged   map[abi.GFN]int    // answers ENOENT so many times
	area    map[uintptr]int    // by page: number of the area
	used    map[int]bool       // by area
	present map[uintptr]bool
	next    int
	fail    syscall.Errno // of the next batch
	failMap syscall.Errno // of the next renew
	res     abi.PrivcmdMmapResource
}

func newModel() *model {
	return &model{p2m: map[abi.GFN]uint64{}, paged: map[abi.GFN]int{}, area: map[uintptr]int{},
		used: map[int]bool{}, present: map[uintptr]bool{}}
}

func addr(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

// forget removes the pages of b from all areas.
func (k *model) forget(b []byte) {
	for i := 0; i < len(b); i += abi.PageSize {
		delete(k.present, addr(b)+uintptr(i))
		delete(k.area, addr(b)+uintptr(i))
	}
}

func (k *model) fresh(b []byte) {
	k.next++
	for i := 0; i < len(b); i += abi.PageSize {
		k.area[addr(b)+uintptr(i)] = k.next
	}
}

func (k *model) reserve(n int) ([]byte, syscall.Errno) { return sys.MapAnon(n) }

// splits tells whether b is a part of an area.
func (k *model) splits(b []byte) bool {
	first, end := k.area[addr(b)], addr(b)+uintptr(len(b))
	last := k.area[end-abi.PageSize]
	return first != 0 && k.area[addr(b)-abi.PageSize] == first || last != 0 && k.area[end] == last
}

func (k *model) renew(b []byte, _ bool) syscall.Errno {
	if k.splits(b) {
		return syscall.EINVAL
	}
	k.forget(b)
	if k.failMap != 0 {
		errno := k.failMap
		k.failMap = 0
		return errno
	}
	clear(b)
	k.fresh(b)
	return 0
}

func (k *model) unmap(b []byte) syscall.Errno {
	if k.splits(b) {
		return syscall.EINVAL
	}
	k.forget(b)
	return sys.Unmap(b)
}

func (k *model) mmapBatch(arg *abi.PrivcmdMmapBatchV2) syscall.Errno {
	if k.fail != 0 {
		errno := k.fail
		k.fail = 0
		return errno
	}
	a, n := uintptr(arg.Addr), int(arg.Num)
	id, ok := k.area[a]
	if !ok {
		return syscall.EINVAL
	}
	for i := range n {
		p := a + uintptr(i*abi.PageSize)
		if k.area[p] != id || k.present[p] {
			return syscall.EINVAL
		}
	}
	if !k.used[id] && (k.area[a-abi.PageSize] == id || k.area[a+uintptr(n*abi.PageSize)] == id) {
		return syscall.EINVAL
	}
	k.used[id] = true
	gfns, errs := unsafe.Slice(arg.Arr, n), unsafe.Slice(arg.Err, n)
	var global syscall.Errno
	for i, g := range gfns {
		errs[i] = 0
		v, ok := k.p2m[g]
		switch {
		case k.paged[g] > 0:
			k.paged[g]--
			errs[i], global = -int32(syscall.ENOENT), syscall.ENOENT
		case !ok:
			errs[i] = -int32(syscall.EINVAL)
		default:
			page := unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&arg.Addr))), n*abi.PageSize)[i*abi.PageSize:]
			binary.LittleEndian.PutUint64(page, v)
			k.present[a+uintptr(i*abi.PageSize)] = true
		}
	}
	return global
}

func (k *model) mmapResource(arg *abi.PrivcmdMmapResource) syscall.Errno {
	k.res = *arg
	if arg.Addr == 0 {
		arg.Num = 17
	}
	return k.fail
}

func (k *model) close() error { return nil }

func value(m *Mapping, i int) uint64 { return binary.LittleEndian.Uint64(m.Page(i)) }

func TestHolesAreReported(t *testing.T) {
	k := newModel()
	k.p2m[10], k.p2m[12] = 100, 120
	h := &Handle{k: k, area: 3}
	m, err := h.Map(7, []abi.GFN{10, 11, 12}, false)
	if err != nil {
		t.Fatal(err)
	}
	if m.Len() != 3 || m.GFN(2) != 12 || len(m.Bytes()) != 3*abi.PageSize {
		t.Errorf("%d pages, gfn %d", m.Len(), m.GFN(2))
	}
	if m.Err(0) != nil || value(m, 0) != 100 || value(m, 2) != 120 {
		t.Error("a present page is wrong")
	}
	var pe *PageError
	if err := m.Err(1); !errors.Is(err, ErrHole) || !errors.Is(err, syscall.EINVAL) || !errors.As(err, &pe) || pe.GFN != 11 || pe.Dom != 7 {
		t.Errorf("hole: %v", err)
	}
	if m.Present(1) || m.Page(1) != nil {
		t.Error("a hole can be touched")
	}
	var page [abi.PageSize]byte
	if !m.CopyPage(&page, 2) || page[0] != 120 || m.CopyPage(&page, 1) {
		t.Error("CopyPage")
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("second close: %v", err)
	}
}

func TestPagedOutPagesAreRetried(t *testing.T) {
	k := newModel()
	for g := range abi.GFN(6) {
		k.p2m[g] = uint64(g)
	}
	k.paged[1], k.paged[2], k.paged[4] = 1, 3, 2
	m, err := (&Handle{k: k, area: 3}).Map(7, []abi.GFN{0, 1, 2, 3, 4, 5}, false)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		if m.Err(i) != nil || value(m, i) != uint64(i) {
			t.Errorf("page %d: %v", i, m.Err(i))
		}
	}
}

func TestMapFails(t *testing.T) {
	k := newModel()
	k.fail = syscall.EPERM
	_, err := (&Handle{k: k, area: 3}).Map(7, []abi.GFN{1}, true)
	var e *Error
	if !errors.Is(err, syscall.EPERM) || !errors.As(err, &e) || e.Dom != 7 || e.First != 1 {
		t.Error(err)
	}
	h := &Handle{k: k, area: 3}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Map(7, []abi.GFN{1}, true); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
}

func TestRemapRejectsBadRanges(t *testing.T) {
	k := newModel()
	m, err := (&Handle{k: k, area: 3}).Map(7, []abi.GFN{0, 1, 2, 3}, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []func() error{
		func() error { return m.Remap(-1, 1) },
		func() error { return m.Remap(3, 1, 2) },
		func() error { return m.Remap(0) },
		func() error { return m.Refresh(1, 4) },
		func() error { return m.Refresh(1, 0) },
	} {
		if f() == nil {
			t.Error("a range outside the mapping was accepted")
		}
	}
}

// TestRemapFollowsTheP2M changes the p2m at random and remaps: pages that were
// remapped show the present p2m, the others that or what they showed before. A
// Remap that fails leaves holes, and the next one mends them.
func TestRemapFollowsTheP2M(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := newModel()
		h := &Handle{k: k, area: 3}
		const n = 8
		next := uint64(1)
		gfns := make([]abi.GFN, n)
		for i := range gfns {
			gfns[i] = abi.GFN(i)
			k.p2m[abi.GFN(i)] = next
			next++
		}
		m, err := h.Map(3, gfns, true)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		shown := make([]uint64, n) // 0: hole
		look := func() []uint64 {
			out := make([]uint64, n)
			for i := range n {
				if m.Present(i) {
					out[i] = value(m, i)
				}
			}
			return out
		}
		copy(shown, look())
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			g := abi.GFN(rapid.IntRange(0, n-1).Draw(t, "gfn"))
			if rapid.Bool().Draw(t, "remove") {
				delete(k.p2m, g)
			} else {
				k.p2m[g] = next
				next++
			}
			lo := rapid.IntRange(0, n-1).Draw(t, "lo")
			hi := rapid.IntRange(lo+1, n).Draw(t, "hi")
			switch rapid.IntRange(0, 5).Draw(t, "fault") {
			case 0:
				k.fail = syscall.ENOMEM
			case 1:
				k.failMap = syscall.ENOMEM
			}
			var err error
			if rapid.Bool().Draw(t, "refresh") {
				var pages []int
				for i := lo; i < hi; i++ {
					pages = append(pages, i)
				}
				err = m.Refresh(pages...)
			} else {
				err = m.Remap(lo, gfns[lo:hi]...)
			}
			if err != nil && !errors.Is(err, syscall.ENOMEM) {
				t.Fatalf("remap %d..%d: %v", lo, hi, err)
			}
			k.fail, k.failMap = 0, 0
			for i, got := range look() {
				now := k.p2m[gfns[i]]
				asked := i >= lo && i < hi
				switch {
				case got == now || err != nil && got == 0:
				case asked || got != shown[i]:
					t.Fatalf("remap %d..%d, %v: page %d shows %d, it was %d and is %d", lo, hi, err, i, got, shown[i], now)
				}
				shown[i] = got
			}
		}
		for lo := range n { // every hole can be mended
			if err := m.Remap(lo, gfns[lo]); err != nil {
				t.Fatal(err)
			}
			if got, now := look()[lo], k.p2m[gfns[lo]]; got != now {
				t.Fatalf("page %d shows %d, not %d", lo, got, now)
			}
		}
	})
}

func TestMapResource(t *testing.T) {
	k := newModel()
	h := &Handle{k: k, area: 3}
	m, err := h.MapResource(9, abi.ResourceGrantTable, abi.ResourceGrantTableIDShared, 2, 3, true)
	if err != nil {
		t.Fatal(err)
	}
	if want := (abi.PrivcmdMmapResource{Dom: 9, Type: 1, Idx: 2, Num: 3, Addr: uint64(addr(m.Bytes()))}); k.res != want {
		t.Errorf("asked for %+v", k.res)
	}
	if m.Len() != 3 || m.Err(2) != nil || m.GFN(0) != abi.InvalidGFN {
		t.Error("a resource has holes")
	}
	if m.Remap(0, 1) == nil {
		t.Error("a resource was remapped")
	}
	if n, err := h.ResourceSize(9, 1, 0); err != nil || n != 17 {
		t.Errorf("size %d, %v", n, err)
	}
	k.fail = syscall.EACCES
	if _, err := h.MapResource(9, 1, 0, 0, 1, false); !errors.Is(err, syscall.EACCES) {
		t.Error(err)
	}
	if _, err := h.MapResource(9, 1, 0, 0, 0, false); err == nil {
		t.Error("no frames were mapped")
	}
}
