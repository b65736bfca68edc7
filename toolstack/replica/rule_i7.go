// SPDX-License-Identifier: Apache-2.0

//go:build !broken_i7

package replica

import (
	"fmt"

	"github.com/kemari-ft/kemari/toolstack/stream"
)

// check says whether the epoch fits to the one before it: an always-sent page
// without all its contents must be the page that was there, and of a page of which lines
// come the shell must have the rest, which it has not of an always-sent one (invariant I7).
func (s *Stage) check(e *stream.Epoch) error {
	at := 0
	for _, p := range e.Always {
		if p.Data != nil && p.Lines == 0 {
			continue
		}
		for at < len(s.Always) && s.Always[at].GFN < p.GFN {
			at++
		}
		if at == len(s.Always) || s.Always[at].GFN != p.GFN || s.Always[at].Kind != p.Kind || s.Always[at].Index != p.Index {
			return fmt.Errorf("epoch %d leaves out always-sent page %#x (kind %#x), which the epoch before does not have", e.Number, uint64(p.GFN), uint16(p.Kind))
		}
	}
	for i := range e.Patches() {
		if gfn, _, _ := e.Lines(i); s.images[gfn] != nil {
			return fmt.Errorf("epoch %d has lines of page %#x, which the epoch before has as an always-sent one", e.Number, uint64(gfn))
		}
	}
	return nil
}
