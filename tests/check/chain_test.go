// SPDX-License-Identifier: Apache-2.0

package check

import (
	"fmt"
	"testing"
)

func chainOf(seed string, slots int, links uint64) *Chain {
	c := NewChain(seed, make([]Hash, slots))
	for range links {
		c.Advance()
	}
	return c
}

// The chain is a format: a guest built last month must be judged by today's
// checker. The value comes from a
// second implementation, in another language.
func TestChainDoesNotChange(t *testing.T) {
	c := chainOf("00000000-0000-4000-8000-000000000001", 64, 1000)
	h := c.Head()
	if got, want := fmt.Sprintf("%x", h[:8]), "c8a5aafb2e2080fd"; got != want {
		t.Errorf("link 1000 is %s, want %s", got, want)
	}
}

func TestChainEveryLostSlotShows(t *testing.T) {
	const slots = 64
	for slot := range slots {
		good, bad := chainOf("seed", slots, 1000), chainOf("seed", slots, 1000)
		bad.table[slot] = Hash{} // a page that came back as zeroes
		if good.Differs(bad) == 0 {
			t.Fatalf("slot %d lost and not seen in the table", slot)
		}
		for range slots {
			good.Advance()
			bad.Advance()
		}
		if good.Head() == bad.Head() {
			t.Errorf("slot %d lost and the chain still on its course after a round", slot)
		}
	}
}

func TestChainStaleSlotShows(t *testing.T) {
	c := chainOf("seed", 64, 1000)
	old := chainOf("seed", 64, 990)
	c.table[995%64] = old.table[995%64] // an earlier epoch's page
	if chainOf("seed", 64, 1000).Differs(c) != 1 {
		t.Error("a slot of an earlier epoch was taken for the current one")
	}
}

func TestChainRestartEqualsNew(t *testing.T) {
	c := chainOf("seed", 64, 777)
	c.Restart("seed")
	if n := c.Differs(chainOf("seed", 64, 0)); n != 0 {
		t.Errorf("%d slots differ after a restart", n)
	}
}

func TestChainAtRefusesHostileNumbers(t *testing.T) {
	for _, c := range []struct {
		slots int
		link  uint64
	}{{0, 1}, {-1, 1}, {1 << 40, 1}, {64, 1 << 60}} {
		if _, err := chainAt("seed", c.slots, []uint64{c.link}); err == nil {
			t.Errorf("%d slots, link %d: recomputed", c.slots, c.link)
		}
	}
}

func TestChainAdvanceDoesNotAllocate(t *testing.T) {
	c := chainOf("seed", 64, 0)
	if n := testing.AllocsPerRun(100, c.Advance); n != 0 {
		t.Errorf("%v allocations per link: the idle guest would dirty its heap", n)
	}
}
