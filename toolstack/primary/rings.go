// SPDX-License-Identifier: Apache-2.0

package primary

import (
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
		frame, err := c.grantFrame(int(ref / frameGrants))
		if err != nil {
			return err
		}
		entry := abi.DecodeGrantEntryV1(frame[ref%frameGrants*grantLen:])
		c.rings = append(c.rings, stream.AlwaysPage{Kind: stream.AlwaysRing, Index: uint32(ref), GFN: abi.GFN(entry.Frame)})
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
