// SPDX-License-Identifier: Apache-2.0

// Package ringtest is a front end for tests of back ends: the front half of
// the macros in xen/include/public/io/ring.h over plain memory.
package ringtest

import (
	"sync/atomic"
	"unsafe"

	"github.com/kemari-ft/kemari/backend/ring"
)

// Front is struct __name##_front_ring. It checks what Linux's front ends
// check, and never forgives: see Responses.
type Front struct {
	Mem      []byte
	slotSize uint32
	size     uint32

	ReqProdPvt uint32
	RspCons    uint32
}

// Shared indices, as offsets into the ring page.
const (
	ReqProd  = 0
	ReqEvent = 4
	RspProd  = 8
	RspEvent = 12
)

// New is XEN_FRONT_RING_INIT: it initialises a shared ring of size bytes.
func New(size, slotSize int) *Front {
	// []uint64 for the alignment the page would have.
	words := make([]uint64, (size+7)/8)
	mem := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), size)
	f := &Front{Mem: mem, slotSize: uint32(slotSize), size: ring.Entries(size, slotSize)}
	f.Store(ReqEvent, 1)
	f.Store(RspEvent, 1)
	return f
}

// StartAt moves all indices to i, for tests near the wrap of 2^32.
func (f *Front) StartAt(i uint32) {
	f.ReqProdPvt, f.RspCons = i, i
	f.Store(ReqProd, i)
	f.Store(RspProd, i)
	f.Store(ReqEvent, i+1)
	f.Store(RspEvent, i+1)
}

// Load reads a shared index.
func (f *Front) Load(off int) uint32 {
	return atomic.LoadUint32((*uint32)(unsafe.Pointer(&f.Mem[off])))
}

// Store writes a shared index.
func (f *Front) Store(off int, v uint32) {
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&f.Mem[off])), v)
}

// Free is RING_FREE_REQUESTS.
func (f *Front) Free() uint32 { return f.size - (f.ReqProdPvt - f.RspCons) }

// Slot is the shared slot of index i: RING_GET_REQUEST, RING_GET_RESPONSE.
func (f *Front) Slot(i uint32) []byte {
	off := ring.HeaderSize + (i&(f.size-1))*f.slotSize
	return f.Mem[off : off+f.slotSize]
}

// Put writes a request into the next free slot without pushing it.
func (f *Front) Put(req []byte) uint32 {
	i := f.ReqProdPvt
	copy(f.Slot(i), req)
	f.ReqProdPvt++
	return i
}

// Push is RING_PUSH_REQUESTS_AND_CHECK_NOTIFY.
func (f *Front) Push() (notify bool) {
	old := f.Load(ReqProd)
	f.Store(ReqProd, f.ReqProdPvt)
	return f.ReqProdPvt-f.Load(ReqEvent) < f.ReqProdPvt-old
}

// Responses calls fn for each new response, in order, and asks to be notified
// of the next: the loop of a front end's interrupt handler with
// RING_FINAL_CHECK_FOR_RESPONSES.
func (f *Front) Responses(fn func(i uint32, rsp []byte)) {
	for {
		prod := f.Load(RspProd)
		if prod-f.RspCons > f.ReqProdPvt-f.RspCons {
			panic("ringtest: rsp_prod is past req_prod")
		}
		for f.RspCons != prod {
			fn(f.RspCons, f.Slot(f.RspCons))
			f.RspCons++
		}
		f.Store(RspEvent, f.RspCons+1)
		if f.Load(RspProd) == f.RspCons {
			return
		}
	}
}
