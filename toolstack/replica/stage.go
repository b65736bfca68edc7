// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"bytes"

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
