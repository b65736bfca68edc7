// SPDX-License-Identifier: Apache-2.0

package stream

import "github.com/kemari-ft/kemari/xen/abi"

// chunkPages is the number of pages in one piece of an epoch's buffer.
const chunkPages = MaxBatch

// Epoch is a whole epoch: everything of it has arrived and its checksum holds.
// Its memory belongs to a Pool; Release gives it back.
type Epoch struct {
	Generation uint64
	Number     uint64
	// Full is set in the first epoch of a generation, which carries all of
	// memory.  Its pages have been handed out as batches before.
	Full  bool
	Zeros []abi.GFN // pages that hold zeros
	Holes []abi.GFN // gfns without a page
	// Always lists all always-sent pages in ascending order of gfn.
	Always   []AlwaysPage
	State    []byte // records of xen/include/public/kemari.h
	Rings    []Ring
	Xenstore []byte // nil: as in the epoch before

	gfns    []abi.GFN
	chunks  [][]byte // of chunkPages pages each
	changed []changed
	lines   []byte // backs changed
	images  []byte // backs Always[].Data
	stored  []byte // backs Xenstore
	pool    *Pool
}

// Pages returns the number of pages with data.
func (e *Epoch) Pages() int { return len(e.gfns) }

// Page returns the gfn and the contents of page i, valid until Release.
func (e *Epoch) Page(i int) (abi.GFN, []byte) {
	off := i % chunkPages * abi.PageSize
	return e.gfns[i], e.chunks[i/chunkPages][off : off+abi.PageSize : off+abi.PageSize]
}

// Release gives the epoch back to its pool.
func (e *Epoch) Release() {
	e.reset()
	e.pool.free <- e
}

func (e *Epoch) reset() {
	e.Generation, e.Number, e.Full = 0, 0, false
	e.gfns, e.Zeros, e.Holes = e.gfns[:0], e.Zeros[:0], e.Holes[:0]
	e.changed, e.lines = e.changed[:0], e.lines[:0]
	e.Always, e.Rings, e.State, e.Xenstore = e.Always[:0], e.Rings[:0], e.State[:0], nil
}

// room returns buffers for the next n pages, which lie in at most two chunks.
func (e *Epoch) room(n int) (first, second []byte) {
	have := len(e.gfns)
	for (have+n+chunkPages-1)/chunkPages > len(e.chunks) {
		e.chunks = append(e.chunks, make([]byte, chunkPages*abi.PageSize))
	}
	off := have % chunkPages
	in := min(n, chunkPages-off)
	first = e.chunks[have/chunkPages][off*abi.PageSize : (off+in)*abi.PageSize]
	if in < n {
		second = e.chunks[have/chunkPages+1][:(n-in)*abi.PageSize]
	}
	return first, second
}

// Pool holds the buffers of a guest's epochs.  There are two, one being
// received while the other is applied; who wants a third waits.
type Pool struct {
	free chan *Epoch
}

// NewPool makes a pool.  Memory is taken when epochs need it.
func NewPool() *Pool {
	const buffers = 2
	p := &Pool{free: make(chan *Epoch, buffers)}
	for range buffers {
		p.free <- &Epoch{pool: p}
	}
	return p
}

// Batch is a part of a full epoch, to be applied at once: a full epoch is as
// large as the guest, and there is no image yet that could be torn by it.  It
// is valid until the next call of Next.
type Batch struct {
	Generation uint64
	GFNs       []abi.GFN // pages with data
	Data       []byte    // one page for each of GFNs
	Zeros      []abi.GFN
	Holes      []abi.GFN
}
