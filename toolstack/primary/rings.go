// SPDX-License-Identifier: Apache-2.0

package primary

import (
	"encoding/binary"

	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/xen/abi"
)

func (c *Capture) grantFrame(i int) ([]byte, error) {
	if c.grants == nil || i >= c.grants.Len() {
		m, err := c.fm.MapResource(c.dom, abi.ResourceGrantTable, abi.ResourceGrantTableIDShared, 0, uint64(i)+1, false)
		if err != nil {
			return nil, err
		}
		if c.grants != nil {
			if err := c.grants.Close(); err != nil {
				return nil, err
			}
		}
		c.grants = m
	}
	return c.grants.Page(i), nil
}

// SetRings says in which pages the rings of the disks are.
func (c *Capture) SetRings(refs []abi.GrantRef) error {
	c.rings = c.rings[:0]
	for _, ref := range refs {
		// struct grant_entry_v1: flags u16, domid u16, frame u32; see
		// xen/include/public/grant_table.h.
		const size, perFrame = 8, abi.PageSize / 8
		frame, err := c.grantFrame(int(ref / perFrame))
		if err != nil {
			return err
		}
		entry := frame[ref%perFrame*size:]
		gfn := abi.GFN(binary.LittleEndian.Uint32(entry[4:]))
		c.rings = append(c.rings, stream.AlwaysPage{Kind: stream.AlwaysRing, Index: uint32(ref), GFN: gfn})
	}
	return nil
}

// FixedGFNs are the gfns of the store's and the console's page.
func (c *Capture) FixedGFNs() map[abi.GFN]bool {
	gfns := map[abi.GFN]bool{}
	for _, p := range c.fixed {
		gfns[p.GFN] = true
	}
	return gfns
}
