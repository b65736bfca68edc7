// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"bytes"
	"fmt"

	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/xen/abi"
)

// Stage is what a secondary keeps of the newest acknowledged epoch beside the
// shell: the parts that enter the shell at activation only (I7).
type Stage struct {
	Always   []stream.AlwaysPage // all of them with Data
	State    []byte
	Rings    []stream.Ring
	Xenstore []byte

	images map[abi.GFN][]byte // backs Always[].Data
}

// check says whether the epoch fits to the one before it: an always-sent page
// without all its contents must be the page that was there, and of a page of which lines
// come the shell must have the rest, which it has not of an always-sent one.
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

// take makes the epoch, which has passed check, the newest one.  It copies:
// the epoch's memory goes back to its pool.
func (s *Stage) take(e *stream.Epoch) {
	if s.images == nil {
		s.images = map[abi.GFN][]byte{}
	}
	old := s.Always
	s.Always = make([]stream.AlwaysPage, len(e.Always))
	for i, p := range e.Always {
		image := s.images[p.GFN]
		if image == nil {
			image = make([]byte, abi.PageSize)
			s.images[p.GFN] = image
		}
		if p.Lines != 0 {
			p.Lines.Patch(image, p.Data)
		} else if p.Data != nil {
			copy(image, p.Data)
		}
		p.Lines, p.Data = 0, image
		s.Always[i] = p
	}
	if len(old) > 0 && len(s.images) > len(s.Always) {
		keep := make(map[abi.GFN][]byte, len(s.Always))
		for _, p := range s.Always {
			keep[p.GFN] = p.Data
		}
		s.images = keep
	}
	s.State = append(s.State[:0], e.State...)
	s.Rings = append(s.Rings[:0], e.Rings...)
	if e.Xenstore != nil {
		s.Xenstore = bytes.Clone(e.Xenstore)
	}
}
