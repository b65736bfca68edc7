// SPDX-License-Identifier: Apache-2.0

// Package hotset decides which pages of a guest are worth being compared at each
// sync rather than being write protected: the guest takes no fault for those, and
// Xen does not change its page tables (XEN_KEMARI_OP_hot, see kemari.h). It knows
// no clock but the syncs, and does no I/O.
//
// To be wrong costs time only: Xen lists each page that was written, hot or not.
package hotset

import (
	"slices"

	"github.com/kemari-ft/kemari/xen/abi"
)

const (
	// enough is in how many syncs in a row a page is listed before it becomes hot.
	enough = 3
	// patience is in how many syncs in a row a hot page is found unchanged before
	// it is so no more. A page may well be written and have the same contents
	// again, of which tells only that it is listed on and on when it is no longer
	// hot: each time it is, it gets twice the patience, up to mostPatience.
	patience, mostPatience = 8, 1024
	// mostKnown bounds the memory, to some 512 KiB.
	mostKnown = 8192
)

// Set is the hot pages of one guest, and what is known of others. The zero value has
// no place for any. It is not safe for concurrent use.
type Set struct {
	max   int
	sync  uint64
	pages map[abi.GFN]page
	hot   []abi.GFN // ascending
	moved bool      // hot is not what Turn returned last
}

type page struct {
	listed   uint64 // the sync in which it was on the list last
	run      uint16 // listed in this many in a row, while it is not hot
	idle     uint16 // unchanged in this many in a row, while it is
	patience uint16 // 0: it was not hot since it was not listed
	hot      bool
}

// New returns a set of at most max pages.
func New(max int) *Set { return &Set{max: max, pages: map[abi.GFN]page{}} }

// Note says that the guest's page was on the list of the sync under way, whether it is
// known to have changed, and whether it may be there only because one beside it was
// written (XEN_KEMARI_OP_warm). It is called once for each.
func (s *Set) Note(gfn abi.GFN, changed, beside bool) {
	if s.max == 0 {
		return
	}
	p, known := s.pages[gfn]
	switch {
	case p.hot && changed:
		p.idle = 0
	case p.hot:
		p.idle++
	case beside && !changed:
		return
	case !known && len(s.pages) >= mostKnown:
		return
	case known && p.listed+1 == s.sync:
		p.run++
	default:
		p.run, p.patience = 1, 0
	}
	p.listed = s.sync
	switch {
	case p.hot && p.idle >= p.patience:
		p.hot, p.run = false, 0
		s.moved = true
	case !p.hot && p.run >= enough && len(s.hot) < s.max:
		p.hot, p.idle = true, 0
		p.patience = min(max(patience, 2*p.patience), mostPatience)
		s.hot = append(s.hot, gfn)
		s.moved = true
	}
	s.pages[gfn] = p
}

// Turn ends a sync. If other pages are hot now it returns all that are, in ascending
// order and valid until the next call, and true.
func (s *Set) Turn() ([]abi.GFN, bool) {
	if len(s.pages) >= mostKnown {
		for gfn, p := range s.pages {
			if !p.hot && p.listed != s.sync {
				delete(s.pages, gfn)
			}
		}
	}
	s.sync++
	if !s.moved {
		return nil, false
	}
	s.moved = false
	s.hot = slices.DeleteFunc(s.hot, func(gfn abi.GFN) bool { return !s.pages[gfn].hot })
	slices.Sort(s.hot)
	return s.hot, true
}

// Len is how many pages are hot.
func (s *Set) Len() int { return len(s.hot) }
