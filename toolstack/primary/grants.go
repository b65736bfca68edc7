// SPDX-License-Identifier: Apache-2.0

package primary

import (
	"errors"
	"fmt"
	"math/bits"
	"strings"
	"unsafe"

	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/xen/abi"
)

// ErrForeignGrants: the guest shares memory with another domain than dom0. That
// reads there what no secondary has acknowledged, writes what no back end of ours
// has frozen, and is not there on the other host.
var ErrForeignGrants = errors.New("other domains than 0 have access to the guest's memory")

// The grant table is frames of these entries. Of a guest that may have version 2
// of it Xen's enable is refused.
const (
	grantLen    = 8
	frameGrants = abi.PageSize / grantLen
)

var _ [grantLen]byte = [unsafe.Sizeof(abi.GrantEntryV1{})]byte{}

// maxForeign bounds how many grants are named: a guest may make 2 million.
const maxForeign = 8

// foreignGrants are grants to other domains than 0: how many, and the first ones.
// The zero value has none.
type foreignGrants struct {
	nr    int
	first []foreignGrant
}

type foreignGrant struct {
	ref abi.GrantRef
	to  abi.DomID
}

func (f *foreignGrants) reset() { f.nr, f.first = 0, f.first[:0] }

// look judges the entries in the lines of set. copied is a copy of frame index of
// the table: the guest can choose what is in it, but not change it meanwhile.
func (f *foreignGrants) look(index uint16, copied []byte, set stream.LineSet) {
	for ; set != 0; set &= set - 1 {
		line := bits.TrailingZeros64(uint64(set)) * stream.LineSize
		for off := line; off < line+stream.LineSize; off += grantLen {
			e := abi.DecodeGrantEntryV1(copied[off:])
			if e.DomID == abi.Dom0 || !e.Grants() {
				continue
			}
			if f.nr++; f.nr <= maxForeign {
				ref := abi.GrantRef(index)*frameGrants + abi.GrantRef(off/grantLen)
				f.first = append(f.first, foreignGrant{ref, e.DomID})
			}
		}
	}
}

// err says what was found, nil if that is nothing.
func (f *foreignGrants) err() error {
	if f.nr == 0 {
		return nil
	}
	var names []string
	for _, g := range f.first {
		names = append(names, fmt.Sprintf("grant %d to domain %d", g.ref, uint16(g.to)))
	}
	if more := f.nr - len(f.first); more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return fmt.Errorf("%w: %s; only devices of domain 0 are protected, detach the others",
		ErrForeignGrants, strings.Join(names, ", "))
}

// addGrants copies a frame of the grant table, and judges what has changed in it
// since the last sync: of what has not, that one has told.
func (c *Capture) addGrants(index uint16, gfn abi.GFN, full bool) error {
	page, err := c.grantFrame(int(index))
	if err != nil {
		return err
	}
	if gfn > stream.MaxGFN || c.alwaysGFNs[gfn] {
		// The guest has not mapped the frame, or has put it where a ring was.
		// It is not sent as one, its grants are as good as any.
		c.lookAtFrame(index, page)
		return nil
	}
	set, err := c.addAlways(stream.AlwaysGrant, uint32(index), gfn, page, full)
	if err == nil {
		c.foreign.look(index, c.sent[gfn], set)
	}
	return err
}

// lookAtFrame judges all of a frame.
func (c *Capture) lookAtFrame(index uint16, page []byte) {
	c.frame = append(c.frame[:0], page...)
	c.foreign.look(index, c.frame, everyLine)
}

// lookAtGrants refuses a guest that has foreign grants, of which the first frames
// of its table are looked at. It may run meanwhile: an epoch looks again.
func (c *Capture) lookAtGrants(frames int) error {
	c.foreign.reset()
	if _, err := c.grantFrame(frames - 1); err != nil { // maps those before, too
		return err
	}
	for i := range frames {
		page, err := c.grantFrame(i)
		if err != nil {
			return err
		}
		c.lookAtFrame(uint16(i), page)
	}
	return c.foreign.err()
}
