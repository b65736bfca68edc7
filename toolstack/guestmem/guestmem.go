// SPDX-License-Identifier: Apache-2.0

// Package guestmem holds the memory of a PVH guest mapped, page by page of its
// physical address space: on the primary to be copied from, on the secondary
// to be written to. It is mapped once, since mapping costs more than copying.
package guestmem

import (
	"errors"
	"fmt"
	"slices"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/domctl"
	"github.com/kemari-ft/kemari/xen/foreignmem"
)

// Where libxl puts the memory of a PVH guest: RAM from 0 up to the hole below
// 4 GiB, in which lie the ACPI tables (at 0xfc000000) and the special pages
// (below 0xff000000), and more RAM from 4 GiB on. See tools/libs/guest/
// xg_dom_x86.c: LAPIC_BASE_ADDRESS, special_pfn(), and
// tools/libs/light/libxl_x86_acpi.c: ACPI_INFO_PHYSICAL_ADDRESS.
const (
	holeStart abi.GFN = 0xfc000
	holeEnd   abi.GFN = 0x100000
)

// maxExtra bounds the gfns outside of the ranges above that a guest can make
// us map one by one.
const maxExtra = 4096

// Memory is the mapped memory of one domain. Its methods must not be called
// concurrently, but for Page.
type Memory struct {
	fm       *foreignmem.Handle
	dom      abi.DomID
	writable bool
	windows  []window
}

type window struct {
	start abi.GFN
	m     *foreignmem.Mapping
}

func (w *window) end() abi.GFN { return w.start + abi.GFN(w.m.Len()) }

// Map maps all of the memory of a domain. There are holes in it, and the pages
// of the grant table and of shared_info, if the guest has mapped them.
func Map(fm *foreignmem.Handle, ctl *domctl.Client, dom abi.DomID, writable bool) (*Memory, error) {
	info, err := ctl.DomainInfo(dom)
	if err != nil {
		return nil, err
	}
	top, err := ctl.MaximumGPFN(dom)
	if err != nil {
		return nil, err
	}
	mem := &Memory{fm: fm, dom: dom, writable: writable}
	ranges := [][2]abi.GFN{
		{0, min(abi.GFN(info.MaxPages), holeStart, top+1)},
		{holeStart, min(holeEnd, top+1)},
		{holeEnd, top + 1},
	}
	for _, r := range ranges {
		if r[0] >= r[1] {
			continue
		}
		if err := mem.add(r[0], r[1]); err != nil {
			return nil, errors.Join(err, mem.Close())
		}
	}
	if n := mem.present(); n < info.TotalPages {
		return nil, errors.Join(fmt.Errorf(
			"mapping the memory of %s: %d of its %d pages lie where a PVH guest has none (highest gfn %#x)",
			dom, info.TotalPages-n, info.TotalPages, top), mem.Close())
	}
	return mem, nil
}

// FromMapping returns a Memory whose pages from start on are those of m, for
// tests of code that reads or writes a guest's memory.
func FromMapping(start abi.GFN, m *foreignmem.Mapping) *Memory {
	return &Memory{windows: []window{{start, m}}}
}

func (mem *Memory) add(start, end abi.GFN) error {
	gfns := make([]abi.GFN, end-start)
	for i := range gfns {
		gfns[i] = start + abi.GFN(i)
	}
	m, err := mem.fm.Map(mem.dom, gfns, mem.writable)
	if err != nil {
		return err
	}
	mem.windows = append(mem.windows, window{start, m})
	return nil
}

func (mem *Memory) present() uint64 {
	var n uint64
	for range mem.All() {
		n++
	}
	return n
}

func (mem *Memory) find(gfn abi.GFN) *window {
	for i := range mem.windows {
		if w := &mem.windows[i]; gfn >= w.start && gfn < w.end() {
			return w
		}
	}
	return nil
}

// Page returns the page at gfn, nil if there is none. It belongs to the guest,
// which changes it while it runs.
func (mem *Memory) Page(gfn abi.GFN) []byte {
	w := mem.find(gfn)
	if w == nil || !w.m.Present(int(gfn-w.start)) {
		return nil
	}
	return w.m.Page(int(gfn - w.start))
}

// All yields all pages in ascending order of their gfns, but for those which
// the guest has added outside of the usual ranges: these come last.
func (mem *Memory) All() func(yield func(abi.GFN, []byte) bool) {
	return func(yield func(abi.GFN, []byte) bool) {
		for i := range mem.windows {
			w := &mem.windows[i]
			for j := range w.m.Len() {
				if w.m.Present(j) && !yield(w.start+abi.GFN(j), w.m.Page(j)) {
					return
				}
			}
		}
	}
}

// Changed maps gfns again whose p2m entries changed: another page may be there
// now, or none. It sorts its argument.
func (mem *Memory) Changed(gfns ...abi.GFN) error {
	slices.Sort(gfns)
	gfns = slices.Compact(gfns)
	for len(gfns) > 0 {
		w := mem.find(gfns[0])
		if w == nil {
			if len(mem.windows) >= maxExtra {
				return fmt.Errorf("mapping gfn %#x of %s: the guest has put too many pages outside of its memory", gfns[0], mem.dom)
			}
			if err := mem.add(gfns[0], gfns[0]+1); err != nil {
				return err
			}
			gfns = gfns[1:]
			continue
		}
		var pages []int
		for len(gfns) > 0 && gfns[0] >= w.start && gfns[0] < w.end() {
			pages = append(pages, int(gfns[0]-w.start))
			gfns = gfns[1:]
		}
		if err := w.m.Refresh(pages...); err != nil {
			return err
		}
	}
	return nil
}

// Close unmaps everything. As long as it has not been called, a domain that is
// destroyed keeps its memory.
func (mem *Memory) Close() error {
	var errs []error
	for _, w := range mem.windows {
		errs = append(errs, w.m.Close())
	}
	mem.windows = nil
	return errors.Join(errs...)
}
