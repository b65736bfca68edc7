// SPDX-License-Identifier: Apache-2.0

package kemariop

import (
	"testing"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/foreignmem"
	"github.com/kemari-ft/kemari/xen/privcmd"
)

// sharedBuffer makes a buffer of 5 pages: header, two halves, always, state.
func sharedBuffer(t *testing.T) (*foreignmem.Mapping, *sharedHeader) {
	t.Helper()
	b, err := privcmd.Simulated(nil).Alloc(5 * abi.PageSize)
	if err != nil {
		t.Fatal(err)
	}
	h := privcmd.Struct[sharedHeader](b)
	*h = sharedHeader{Magic: magic, Version: 1, NrFrames: 5, DirtyOff: [2]uint32{0x1000, 0x2000}, DirtyMax: 512,
		AlwaysOff: 0x3000, AlwaysMax: 100, StateOff: 0x4000, StateMax: 4096}
	return foreignmem.FromBytes(b.Bytes()), h
}

func TestSharedViews(t *testing.T) {
	m, h := sharedBuffer(t)
	s, err := NewShared(m)
	if err != nil {
		t.Fatal(err)
	}
	privcmd.Slice[uint64](m.Bytes()[0x2000:], 512)[1] = 1<<63 | 0x1234
	privcmd.Slice[uint64](m.Bytes()[0x3000:], 100)[0] = 1<<56 | 5<<44 | 0x77
	copy(m.Bytes()[0x4000:], "state")
	h.TriggerPort, h.TriggerReason = 7, TriggerEvent
	h.Used[1] = 1 << 3
	h.Sync.Epoch = 3
	h.TTrigger, h.TFrozen, h.THarvested = 1, 2, 3

	d, err := s.Dirty(1, 2)
	if err != nil || len(d) != 2 {
		t.Fatalf("%v, %v", d, err)
	}
	if gfn, p2m := DirtyGFN(d[1]); gfn != 0x1234 || !p2m {
		t.Errorf("gfn %#x p2m %v", gfn, p2m)
	}
	a, err := s.Always(1)
	if err != nil {
		t.Fatal(err)
	}
	if kind, idx, gfn := AlwaysEntry(a[0]); kind != AlwaysGrant || idx != 5 || gfn != 0x77 {
		t.Errorf("kind %d index %d gfn %#x", kind, idx, gfn)
	}
	if b, err := s.StateCopy(5); err != nil || string(b) != "state" {
		t.Errorf("%q, %v", b, err)
	}
	if r, p := s.Trigger(); r != TriggerEvent || p != 7 {
		t.Errorf("trigger %v port %d", r, p)
	}
	if !s.Used(67) || s.Used(66) || s.Used(MaxPorts) {
		t.Error("used bits")
	}
	if s.LastSync().Epoch != 3 {
		t.Error("last sync")
	}
	if a, b, c := s.Times(); a != 1 || b != 2 || c != 3 {
		t.Error("times")
	}
	for name, err := range map[string]error{
		"dirty": second(s.Dirty(0, 513)), "half": second(s.Dirty(2, 1)),
		"always": second(s.Always(101)), "state": second(s.State(4097)),
	} {
		if err == nil {
			t.Errorf("%s: reading past the area succeeded", name)
		}
	}
	if n := testing.AllocsPerRun(10, func() {
		if _, err := s.Dirty(1, 512); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("Dirty allocates %v times", n)
	}
}

func second[T any](_ T, err error) error { return err }

func TestSharedRejectsBadLayouts(t *testing.T) {
	for name, spoil := range map[string]func(*sharedHeader){
		"magic":      func(h *sharedHeader) { h.Magic++ },
		"version":    func(h *sharedHeader) { h.Version++ },
		"frames":     func(h *sharedHeader) { h.NrFrames++ },
		"unaligned":  func(h *sharedHeader) { h.DirtyOff[1] += 8 },
		"in header":  func(h *sharedHeader) { h.StateOff = 0 },
		"dirty size": func(h *sharedHeader) { h.DirtyMax = 1 << 31 },
		"always":     func(h *sharedHeader) { h.AlwaysOff = 0x5000 },
		"state":      func(h *sharedHeader) { h.StateOff = 0xfffff000 },
		"state size": func(h *sharedHeader) { h.StateMax = 4097 },
	} {
		m, h := sharedBuffer(t)
		spoil(h)
		if _, err := NewShared(m); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := NewShared(foreignmem.FromBytes(nil)); err == nil {
		t.Error("an empty buffer was accepted")
	}
}
