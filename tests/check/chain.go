// SPDX-License-Identifier: Apache-2.0

package check

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// Hash is one link of the chain and one slot of its table.
type Hash [sha256.Size]byte

// Chain is a chain of hashes kept over a table. Link n is
//
//	sha256(n || link n-1 || table[n mod slots] || table[link n-1 mod slots])
//
// and replaces table[n mod slots]. Each link reads one slot in order and one
// chosen by the link before it, so a page of the table that was lost, or is
// older than the rest of the memory, sends the chain off its course for ever:
// from then on no link agrees with a recomputation from the seed.
type Chain struct {
	table []Hash
	link  uint64
	head  Hash
}

// NewChain starts the chain of seed over table, whose contents it overwrites.
// The caller provides the memory, because the guest keeps it outside of Go's
// heap. An empty table is a programming error.
func NewChain(seed string, table []Hash) *Chain {
	c := &Chain{table: table}
	c.Restart(seed)
	return c
}

// Restart takes the chain back to link 0 of seed.
func (c *Chain) Restart(seed string) {
	c.link, c.head = 0, sha256.Sum256([]byte(seed))
	// The fill is a plain generator and not sha256 so that a large table costs
	// an emulated processor milliseconds, not seconds.
	state := binary.LittleEndian.Uint64(c.head[:])
	for i := range c.table {
		for j := 0; j < len(c.table[i]); j += 8 {
			binary.LittleEndian.PutUint64(c.table[i][j:], splitmix(&state))
		}
	}
}

// Advance adds one link.
func (c *Chain) Advance() {
	slots := uint64(len(c.table))
	c.link++
	slot := &c.table[c.link%slots]
	var in [8 + 3*sha256.Size]byte
	binary.LittleEndian.PutUint64(in[:], c.link)
	copy(in[8:], c.head[:])
	copy(in[40:], slot[:])
	copy(in[72:], c.table[binary.LittleEndian.Uint64(c.head[:])%slots][:])
	c.head = sha256.Sum256(in[:])
	*slot = c.head
}

// Link is the number of the newest link; the seed's own hash is link 0.
func (c *Chain) Link() uint64 { return c.link }

// Head is the newest link.
func (c *Chain) Head() Hash { return c.head }

// Slots is the size of the table.
func (c *Chain) Slots() int { return len(c.table) }

// Differs counts the slots in which two chains of the same length and link
// number disagree, the newest link counted as one more.
func (c *Chain) Differs(o *Chain) int {
	n := 0
	if c.link != o.link || c.head != o.head {
		n++
	}
	for i := range c.table {
		if c.table[i] != o.table[i] {
			n++
		}
	}
	return n
}

// maxRecompute bounds the work a hostile status can ask for: at the guest's
// rate of 128 links a tick it is more than three days of ticks.
const maxRecompute = 1 << 25

// maxTable bounds the memory a hostile status can ask for.
const maxTable = 512 << 20 / sha256.Size

// chainAt recomputes the chain of seed over slots slots and returns the links
// asked for.
func chainAt(seed string, slots int, links []uint64) (map[uint64]Hash, error) {
	at := make(map[uint64]Hash, len(links))
	if slots <= 0 || slots > maxTable {
		return nil, fmt.Errorf("chain table of %d slots: not between 1 and %d", slots, maxTable)
	}
	last := uint64(0)
	for _, l := range links {
		at[l] = Hash{}
		last = max(last, l)
	}
	if last > maxRecompute {
		return nil, fmt.Errorf("chain link %d: more than the %d a recomputation covers", last, maxRecompute)
	}
	c := NewChain(seed, make([]Hash, slots))
	for {
		if _, ok := at[c.link]; ok {
			at[c.link] = c.head
		}
		if c.link == last {
			return at, nil
		}
		c.Advance()
	}
}

// splitmix is Steele, Lea and Flood's SplitMix64.
func splitmix(state *uint64) uint64 {
	*state += 0x9e3779b97f4a7c15
	z := *state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
