// SPDX-License-Identifier: Apache-2.0

package primary

import (
	"encoding/binary"

	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/xen/abi"
)

// knownPages is how many pages' contents are remembered: 16 MiB.
const knownPages = 4096

// known remembers what the secondary was last told about some pages. Of those that
// a guest dirties many are as they were: written back, or with the same value. In
// most of the others a few lines have changed.
//
// A page that is not remembered takes the place of one that has not been dirtied
// for long. The zero value remembers nothing.
type known struct {
	places map[abi.GFN]int
	gfns   []abi.GFN // by place; counts only where places says the same
	recent []bool    // dirtied again since hand was there
	pages  []byte
	hand   int // goes round the places
}

// everyLine is all of a page.
const everyLine = ^stream.LineSet(0)

// tell returns which lines of the page at gfn the secondary does not have, and what
// it is to be told: a copy of the page, valid until the next call. compared says
// that the page was remembered.
func (k *known) tell(gfn abi.GFN, page []byte) (set stream.LineSet, copied []byte, compared bool) {
	if place, ok := k.places[gfn]; ok {
		k.recent[place] = true
		set, copied = k.again(place, page)
		return set, copied, true
	}
	copied = k.page(k.place(gfn))
	copy(copied, page)
	return everyLine, copied, false
}

func (k *known) page(place int) []byte { return k.pages[place*abi.PageSize:][:abi.PageSize] }

// place gives gfn a place.
func (k *known) place(gfn abi.GFN) int {
	if k.places == nil {
		k.places = make(map[abi.GFN]int, knownPages)
		k.gfns, k.recent, k.pages = make([]abi.GFN, knownPages), make([]bool, knownPages), make([]byte, knownPages*abi.PageSize)
	}
	for k.recent[k.hand] {
		k.recent[k.hand] = false
		k.hand = (k.hand + 1) % knownPages
	}
	place := k.hand
	k.hand = (k.hand + 1) % knownPages
	if at, ok := k.places[k.gfns[place]]; ok && at == place {
		delete(k.places, k.gfns[place])
	}
	k.gfns[place], k.places[gfn] = gfn, place
	return place
}

func (k *known) forgetAll() { clear(k.places) }

// update makes a copy of a page what the page is now, and returns in which lines it
// was not. What it does not return it has not changed, whoever writes to the page
// meanwhile.
//
// All of this is what a real processor waits for memory, whatever it compares with.
// An emulated one takes four times as long for the vectors of bytes.Equal.
func update(copied, page []byte) (set stream.LineSet) {
	le := binary.LittleEndian
	for off := 0; off < abi.PageSize; off += stream.LineSize {
		was, is := copied[off:off+stream.LineSize:off+stream.LineSize], page[off:off+stream.LineSize:off+stream.LineSize]
		differ := le.Uint64(was) ^ le.Uint64(is)
		differ |= le.Uint64(was[8:]) ^ le.Uint64(is[8:])
		differ |= le.Uint64(was[16:]) ^ le.Uint64(is[16:])
		differ |= le.Uint64(was[24:]) ^ le.Uint64(is[24:])
		differ |= le.Uint64(was[32:]) ^ le.Uint64(is[32:])
		differ |= le.Uint64(was[40:]) ^ le.Uint64(is[40:])
		differ |= le.Uint64(was[48:]) ^ le.Uint64(is[48:])
		differ |= le.Uint64(was[56:]) ^ le.Uint64(is[56:])
		if differ != 0 {
			copy(was, is)
			set |= 1 << (off / stream.LineSize)
		}
	}
	return set
}
