// SPDX-License-Identifier: Apache-2.0

package primary

import (
	"bytes"

	"github.com/kemari-ft/kemari/xen/abi"
)

// knownPages is how many pages' contents are remembered: 8 MiB.
const knownPages = 2048

// known remembers what the secondary was last told about some pages. Of those that
// a guest dirties many are as they were: written back, or with the same value.
//
// Each gfn has one place, which it shares with others: the newest one has it.
// The zero value remembers nothing.
type known struct {
	gfns  []abi.GFN // plus 1; 0: nothing
	pages []byte
}

// tell reports whether the secondary has page at gfn. If not, it is to be told,
// and then has.
func (k *known) tell(gfn abi.GFN, page []byte) bool {
	if k.gfns == nil {
		k.gfns, k.pages = make([]abi.GFN, knownPages), make([]byte, knownPages*abi.PageSize)
	}
	slot := gfn % knownPages
	copied := k.pages[slot*abi.PageSize:][:abi.PageSize]
	if k.gfns[slot] == gfn+1 && bytes.Equal(copied, page) {
		return true
	}
	k.gfns[slot] = gfn + 1
	copy(copied, page)
	return false
}

// forget is for a page about which the secondary is told otherwise.
func (k *known) forget(gfn abi.GFN) {
	if k.gfns != nil && k.gfns[gfn%knownPages] == gfn+1 {
		k.gfns[gfn%knownPages] = 0
	}
}

func (k *known) forgetAll() { clear(k.gfns) }
