// SPDX-License-Identifier: Apache-2.0

package primary

import (
	"bytes"

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
func update(copied, page []byte) (set stream.LineSet) {
	const stride = 8 * stream.LineSize // of which a change is looked for at once
	for at := 0; at < abi.PageSize; at += stride {
		if bytes.Equal(copied[at:at+stride], page[at:at+stride]) {
			continue
		}
		for off := at; off < at+stride; off += stream.LineSize {
			was := (*[stream.LineSize]byte)(copied[off:])
			is := (*[stream.LineSize]byte)(page[off:])
			if *was != *is {
				*was = *is
				set |= 1 << (off / stream.LineSize)
			}
		}
	}
	return set
}
