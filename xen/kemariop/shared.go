// SPDX-License-Identifier: Apache-2.0

package kemariop

import (
	"bytes"
	"fmt"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/foreignmem"
	"github.com/kemari-ft/kemari/xen/privcmd"
)

// Shared is a view of the buffer that Xen writes for a primary. What its
// methods return without copying is stable from a harvest until the epoch's
// release with ReleaseOut; the other half of the dirty list changes at any time.
type Shared struct {
	m      *foreignmem.Mapping
	hdr    *sharedHeader
	dirty  [2][]uint64
	always []uint64
	state  []byte
}

// MapShared maps the shared buffer of a domain enabled as primary. nrFrames is
// Status.NrFrames.
func (c *Client) MapShared(fm *foreignmem.Handle, nrFrames uint32) (*Shared, error) {
	m, err := fm.MapResource(c.dom, ResourceKemari, 0, 0, uint64(nrFrames), false)
	if err != nil {
		return nil, err
	}
	s, err := NewShared(m)
	if err != nil {
		m.Close()
		return nil, fmt.Errorf("kemari shared buffer of %s: %w", c.dom, err)
	}
	return s, nil
}

// NewShared makes a view of a mapped buffer, which it owns from then on. The
// layout is read and checked once.
func NewShared(m *foreignmem.Mapping) (*Shared, error) {
	b := m.Bytes()
	if len(b) < abi.PageSize {
		return nil, fmt.Errorf("%d bytes have no header", len(b))
	}
	h := privcmd.StructAt[sharedHeader](b)
	if h.Magic != magic {
		return nil, fmt.Errorf("bad magic %#x", h.Magic)
	}
	if h.Version != InterfaceVersion {
		return nil, fmt.Errorf("%w: %d, not %d", ErrVersion, h.Version, InterfaceVersion)
	}
	if uint64(h.NrFrames)*abi.PageSize != uint64(len(b)) {
		return nil, fmt.Errorf("%d frames of %d are mapped", len(b)/abi.PageSize, h.NrFrames)
	}
	s := &Shared{m: m, hdr: h}
	area := func(name string, off uint32, size uint64) ([]byte, error) {
		if off < abi.PageSize || off%abi.PageSize != 0 || uint64(off) > uint64(len(b)) || size > uint64(len(b))-uint64(off) {
			return nil, fmt.Errorf("area %s of %d bytes at %#x is not in the buffer of %d bytes", name, size, off, len(b))
		}
		return b[off : uint64(off)+size], nil
	}
	for i, off := range h.DirtyOff {
		d, err := area("dirty", off, uint64(h.DirtyMax)*8)
		if err != nil {
			return nil, err
		}
		s.dirty[i] = privcmd.Slice[uint64](d, len(d)/8)
	}
	a, err := area("always", h.AlwaysOff, uint64(h.AlwaysMax)*8)
	if err != nil {
		return nil, err
	}
	s.always = privcmd.Slice[uint64](a, len(a)/8)
	s.state, err = area("state", h.StateOff, uint64(h.StateMax))
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Close unmaps the buffer. What was returned without copying is gone.
func (s *Shared) Close() error { return s.m.Close() }

// Dirty returns the first n entries of a half of the dirty list, in place.
// Decode them with DirtyGFN.
func (s *Shared) Dirty(half, n uint32) ([]uint64, error) {
	if half > 1 || uint64(n) > uint64(len(s.dirty[half&1])) {
		return nil, fmt.Errorf("kemari shared buffer: %d entries of dirty half %d, of %d", n, half, len(s.dirty[0]))
	}
	return s.dirty[half][:n:n], nil
}

// DirtyGFN decodes an entry of the dirty list. p2m: the page behind the gfn may
// be another one than before, or none; map again before copying.
func DirtyGFN(entry uint64) (gfn abi.GFN, p2m bool) {
	return abi.GFN(entry & dirtyMask), entry&DirtyP2M != 0
}

// Always returns the first n entries of the list of pages that Xen writes
// without logging, in place. Decode them with AlwaysEntry.
func (s *Shared) Always(n uint32) ([]uint64, error) {
	if uint64(n) > uint64(len(s.always)) {
		return nil, fmt.Errorf("kemari shared buffer: %d always entries, of %d", n, len(s.always))
	}
	return s.always[:n:n], nil
}

// AlwaysEntry decodes an entry of that list: the kind is one of Always*, index
// the number of the frame for AlwaysGrant.
func AlwaysEntry(entry uint64) (kind uint8, index uint16, gfn abi.GFN) {
	return uint8(entry >> alwaysKindShift), uint16(entry >> alwaysIdxShift & alwaysIdxMask), abi.GFN(entry & alwaysGFNMask)
}

// State returns the n bytes of state records, in place. Decode them with
// DecodeState, on a copy if they are kept.
func (s *Shared) State(n uint32) ([]byte, error) {
	if uint64(n) > uint64(len(s.state)) {
		return nil, fmt.Errorf("kemari shared buffer: %d bytes of state, of %d", n, len(s.state))
	}
	return s.state[:n:n], nil
}

// StateCopy is State, copied once.
func (s *Shared) StateCopy(n uint32) ([]byte, error) {
	b, err := s.State(n)
	return bytes.Clone(b), err
}

// Trigger tells why the domain was last paused; the port is meaningful for
// TriggerEvent.
func (s *Shared) Trigger() (Trigger, abi.Port) { return s.hdr.TriggerReason, s.hdr.TriggerPort }

// Times returns Xen's system time, in nanoseconds, of the last trigger, of the
// instant when all vCPUs were off, and of the completion of the last harvest.
func (s *Shared) Times() (trigger, frozen, harvested uint64) {
	return s.hdr.TTrigger, s.hdr.TFrozen, s.hdr.THarvested
}

// LastSync is the result of the last harvest. A daemon that was restarted
// finds it here.
func (s *Shared) LastSync() SyncResult { return s.hdr.Sync }

// Used reports whether the domain used a port since the sync before the last.
func (s *Shared) Used(port abi.Port) bool {
	return port < MaxPorts && s.hdr.Used[port/64]>>(port%64)&1 != 0
}
