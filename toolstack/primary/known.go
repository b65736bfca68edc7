// SPDX-License-Identifier: Apache-2.0

package primary

import (
	"slices"

	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/kemariop"
)

// knownPages is how many pages' contents are remembered: 16 MiB. All of them may be
// warm.
const knownPages = kemariop.WarmMax

// known remembers what the secondary was last told about some pages. Of those that
// a guest dirties many are as they were: written back, or with the same value. In
// most of the others a few lines have changed.
//
// A page that is not remembered takes the place of one that has not been dirtied
// for long.
//
// Of the remembered pages those are warm that had changed when they were on a list
// last: the guest may well write to them when it writes to one beside them. To be
// wrong costs a comparison, and the page is warm no more. One that is not remembered
// would have to be sent.
//
// The zero value remembers nothing.
type known struct {
	places map[abi.GFN]int
	gfns   []abi.GFN // by place; counts only where places says the same
	recent []bool    // by place: dirtied again since hand was there
	warm   []bool    // by place
	pages  []byte
	diff   []byte // reused: of the page told last
	hand   int    // goes round the places
}

// everyLine is all of a page.
const everyLine = ^stream.LineSet(0)

// tell returns which lines of the page at gfn the secondary does not have, and what
// it is to be told of them, valid until the next call. compared says that the page was
// remembered: all of one that was not is to be sent.
func (k *known) tell(gfn abi.GFN, page []byte) (set stream.LineSet, diff []byte, compared bool) {
	if place, ok := k.places[gfn]; ok {
		k.recent[place] = true
		set = k.again(place, page)
		k.warm[place] = set != 0
		return set, k.diff, true
	}
	copy(k.page(k.place(gfn)), page)
	return everyLine, nil, false
}

func (k *known) page(place int) []byte { return k.pages[place*abi.PageSize:][:abi.PageSize] }

// place gives gfn a place.
func (k *known) place(gfn abi.GFN) int {
	if k.places == nil {
		k.places = make(map[abi.GFN]int, knownPages)
		k.gfns, k.pages = make([]abi.GFN, knownPages), make([]byte, knownPages*abi.PageSize)
		k.recent, k.warm = make([]bool, knownPages), make([]bool, knownPages)
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
	k.warm[place] = true
	return place
}

// appendWarm adds the warm pages to to, in ascending order.
func (k *known) appendWarm(to []abi.GFN) []abi.GFN {
	from := len(to)
	for gfn, place := range k.places {
		if k.warm[place] {
			to = append(to, gfn)
		}
	}
	slices.Sort(to[from:])
	return to
}

func (k *known) forgetAll() { clear(k.places) }
