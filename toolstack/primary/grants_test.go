// SPDX-License-Identifier: Apache-2.0

package primary

import (
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/kemari-ft/kemari/toolstack/host"
	"github.com/kemari-ft/kemari/toolstack/hotset"
	"github.com/kemari-ft/kemari/toolstack/lease"
	"github.com/kemari-ft/kemari/toolstack/replica"
	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/domctl"
	"github.com/kemari-ft/kemari/xen/foreignmem"
	"github.com/kemari-ft/kemari/xen/privcmd"
)

// putGrant writes an entry of a grant table.
func putGrant(table []byte, ref abi.GrantRef, flags uint16, to abi.DomID) {
	le := binary.LittleEndian
	le.PutUint16(table[ref*grantLen:], flags)
	le.PutUint16(table[ref*grantLen+2:], uint16(to))
}

// naive finds the foreign grants of a table, entry by entry.
func naive(table []byte) (found []foreignGrant) {
	for ref := range len(table) / 8 {
		entry := table[8*ref:][:8]
		kind := int(entry[0]) & 3
		to := abi.DomID(entry[2]) | abi.DomID(entry[3])<<8
		if to != 0 && (kind == 1 || kind == 2) {
			found = append(found, foreignGrant{abi.GrantRef(ref), to})
		}
	}
	return found
}

func TestForeignGrants(t *testing.T) {
	type entry struct {
		ref   abi.GrantRef
		flags uint16
		to    abi.DomID
	}
	const permit, transfer = abi.GTFPermitAccess, abi.GTFAcceptTransfer
	var many []entry
	for ref := range abi.GrantRef(frameGrants) {
		many = append(many, entry{ref, permit, 5})
	}
	for _, tc := range []struct {
		what    string
		entries []entry
		index   uint16
		set     stream.LineSet
		say     string // of the error, empty for none
	}{
		{"none", nil, 0, everyLine, ""},
		{"console, xenstore and disks", []entry{{abi.GnttabReservedConsole, permit, 0}, {abi.GnttabReservedXenstore, permit, 0},
			{8, permit | abi.GTFReading | abi.GTFWriting, 0}, {511, permit | abi.GTFReadonly, 0}}, 0, everyLine, ""},
		{"a transfer from domain 0", []entry{{9, transfer, 0}}, 0, everyLine, ""},
		{"freed by the guest, which leaves the domid", []entry{{9, 0, 5}}, 0, everyLine, ""},
		{"of no type, with Xen's flags", []entry{{9, abi.GTFReading | abi.GTFWriting | abi.GTFSubPage, 5}}, 0, everyLine, ""},
		{"transitive, which version 1 has not", []entry{{9, 3, 5}}, 0, everyLine, ""},
		{"xenstored in a domain of its own", []entry{{abi.GnttabReservedXenstore, permit, 1}}, 0, everyLine, ": grant 1 to domain 1;"},
		{"a driver domain", []entry{{9, permit | abi.GTFReading, 5}}, 0, everyLine, ": grant 9 to domain 5;"},
		{"a transfer", []entry{{9, transfer, 5}}, 0, everyLine, ": grant 9 to domain 5;"},
		{"itself", []entry{{9, permit, abi.DomIDSelf}}, 0, everyLine, ": grant 9 to domain 32752;"},
		{"the highest domid", []entry{{0, permit, 0xffff}}, 0, everyLine, ": grant 0 to domain 65535;"},
		{"the last entry of the last frame there can be", []entry{{511, permit, 5}}, 4095, everyLine, ": grant 2097151 to domain 5;"},
		{"several", []entry{{8, permit, 5}, {9, permit, 0}, {10, transfer, 6}}, 1, everyLine, ": grant 520 to domain 5, grant 522 to domain 6;"},
		{"all", many, 0, everyLine, "grant 7 to domain 5, and 504 more;"},
		{"a line that has not changed", []entry{{8, permit, 5}, {16, permit, 5}}, 0, 1 << 2, ": grant 16 to domain 5;"},
		{"no line that has changed", many, 0, 0, ""},
	} {
		t.Run(tc.what, func(t *testing.T) {
			frame := make([]byte, abi.PageSize)
			for _, e := range tc.entries {
				putGrant(frame, e.ref, e.flags, e.to)
			}
			var f foreignGrants
			f.look(tc.index, frame, tc.set)
			err := f.err()
			if (err != nil) != (tc.say != "") || err != nil && !errors.Is(err, ErrForeignGrants) {
				t.Fatalf("got %v", err)
			}
			if err != nil && (!strings.Contains(err.Error(), tc.say) || strings.Count(err.Error(), "grant ") > maxForeign+1) {
				t.Errorf("%q does not say %q", err, tc.say)
			}
			f.reset()
			if f.err() != nil {
				t.Error("still found after a reset")
			}
		})
	}
}

// TestForeignGrantsAgainstNaive: of any frame just those are found that a scan of
// all its entries finds in the lines that are looked at.
func TestForeignGrantsAgainstNaive(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		frame := drawFrame(rt)
		set := stream.LineSet(rapid.OneOf(rapid.Just(^uint64(0)), rapid.Uint64()).Draw(rt, "lines"))
		index := rapid.Uint16Range(0, 4095).Draw(rt, "index")
		var want []foreignGrant
		for _, g := range naive(frame) {
			if set>>(int(g.ref)*grantLen/stream.LineSize)&1 != 0 {
				want = append(want, foreignGrant{g.ref + abi.GrantRef(index)*frameGrants, g.to})
			}
		}
		var f foreignGrants
		f.look(index, frame, set)
		if f.nr != len(want) || !slices.Equal(f.first, want[:min(len(want), maxForeign)]) {
			rt.Errorf("found %d, first %v; want %v", f.nr, f.first, want)
		}
	})
}

// drawFrame draws a frame of mostly harmless entries.
func drawFrame(rt *rapid.T) []byte {
	frame := make([]byte, abi.PageSize)
	rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))
	odds := rapid.SampledFrom([]int{2, 50, 1000}).Draw(rt, "one foreign entry in")
	for ref := range abi.GrantRef(frameGrants) {
		flags, to := uint16(rnd.Uint32()), abi.DomID(0)
		if rnd.IntN(odds) == 0 {
			to = abi.DomID(rnd.Uint32())
		}
		putGrant(frame, ref, flags, to)
	}
	return frame
}

// epochOnly sends an epoch to nobody.
func (g *fakeGuest) epochOnly(full bool) error {
	r := g.harvest()
	g.must(g.capture.SetRings(g.refs))
	_, err := g.capture.Epoch(stream.NewWriter(io.Discard), 1, g.epoch, r, full, nil, nil)
	g.capture.Committed()
	return err
}

// TestNewForeignGrantIsNoticed: one entry becomes a grant to another domain, in a
// table that is known and of which only its line changes, and nothing of that
// epoch is written.
func TestNewForeignGrantIsNoticed(t *testing.T) {
	for _, ref := range []abi.GrantRef{0, 1, 8, 255, 511} {
		g := newFakeGuest(t)
		table := g.page(grantGFN)
		for ref := range abi.GrantRef(frameGrants) {
			putGrant(table, ref, abi.GTFPermitAccess, 0)
		}
		g.sync()
		putGrant(table, ref^1, abi.GTFPermitAccess|abi.GTFWriting, 0) // a neighbour
		g.sync()
		before := slices.Clone(g.capture.sent[grantGFN])
		putGrant(table, ref, abi.GTFPermitAccess, 5)
		if set, _ := stream.Diff(nil, before, table); set.Len() != 1 {
			t.Fatalf("%d lines have changed", set.Len())
		}
		g.write(20)
		r := g.harvest()
		g.must(g.capture.SetRings(g.refs))
		_, err := g.capture.Epoch(g.writer, 1, g.epoch, r, false, nil, nil)
		if !errors.Is(err, ErrForeignGrants) || g.out.Len() != 0 {
			t.Errorf("grant %d: %v, %d octets written", ref, err, g.out.Len())
		}
	}
}

// TestLastRoundLooksAtGrants: what the guest has done during the first copy.
func TestLastRoundLooksAtGrants(t *testing.T) {
	g := newFakeGuest(t)
	g.must(g.capture.lookAtGrants(1))
	g.must(g.writer.Begin(1, 1, true))
	putGrant(g.page(grantGFN), 100, abi.GTFAcceptTransfer, 5)
	_, err := g.capture.LastRound(g.writer, g.harvest(), nil, nil, nil)
	if !errors.Is(err, ErrForeignGrants) {
		t.Error(err)
	}
}

// TestForeignGrantsOverEpochs: an epoch is refused just if a scan of the whole
// table at that time finds something, whatever the guest has done to its table and
// to where it has mapped that, although most of it is not looked at.
func TestForeignGrantsOverEpochs(t *testing.T) {
	const frames = 3
	rapid.Check(t, func(rt *rapid.T) {
		g := newFakeGuest(t)
		table := make([]byte, frames*abi.PageSize)
		g.capture.grants = foreignmem.FromBytes(table)
		at := []abi.GFN{grantGFN, abi.GFN(1)<<44 - 1, 25} // the second one is not mapped
		other := g.named[2:]
		for ref, gfn := range []abi.GFN{1: ring0GFN, 2: ring1GFN} {
			binary.LittleEndian.PutUint32(table[8*ref+4:], uint32(gfn))
		}
		for epoch := range rapid.IntRange(1, 8).Draw(rt, "epochs") {
			if rapid.IntRange(0, 9).Draw(rt, "all of a frame") == 0 {
				copy(table[rapid.IntRange(0, frames-1).Draw(rt, "frame")*abi.PageSize:], drawFrame(rt))
			}
			for range rapid.IntRange(0, 20).Draw(rt, "writes") {
				to := abi.DomID(0)
				flags := rapid.Uint16().Draw(rt, "flags")
				if rapid.IntRange(0, 40).Draw(rt, "foreign") == 40 {
					to = 5
				} else if rapid.Bool().Draw(rt, "free") {
					to, flags = 5, flags&^3
				}
				putGrant(table, abi.GrantRef(rapid.IntRange(0, frames*frameGrants-1).Draw(rt, "ref")), flags, to)
			}
			switch rapid.IntRange(0, 9).Draw(rt, "event") {
			case 0:
				g.capture.Forget()
			case 1: // the frames change places
				at[0], at[2] = at[2], at[0]
			case 2: // one is mapped, another one no more
				at[1], at[2] = at[2], at[1]
			case 3: // the ring is said to be where a frame is
				if at[0] < guestPages {
					binary.LittleEndian.PutUint32(table[8*2+4:], uint32(at[0]))
				}
			}
			n := rapid.IntRange(1, frames).Draw(rt, "frames") // some are not there yet
			g.named = slices.Clone(other)
			for i := range n {
				g.named = append(g.named, named(stream.AlwaysGrant, at[i])|uint64(i)<<44)
			}
			want := naive(table[:n*abi.PageSize])
			err := g.epochOnly(epoch == 0)
			if len(want) == 0 && err != nil || len(want) > 0 && !errors.Is(err, ErrForeignGrants) {
				rt.Fatalf("got %v, want %v", err, want)
			}
			if err != nil {
				// Protection ends. If it did not, because the guest withdraws
				// them, nothing of this epoch has been sent.
				g.capture.Forget()
				for _, f := range want {
					putGrant(table, f.ref, 0, f.to)
				}
			}
			clear(table[n*abi.PageSize:]) // as Xen's new frames are
		}
	})
}

// TestLookingAtGrantsDoesNotAllocate: of a table that is as it should be.
func TestLookingAtGrantsDoesNotAllocate(t *testing.T) {
	g := newFakeGuest(t)
	table := g.page(grantGFN)
	g.must(g.epochOnly(true))
	r := g.harvest()
	n := testing.AllocsPerRun(100, func() {
		for ref := range abi.GrantRef(frameGrants) {
			putGrant(table, ref, uint16(g.n), 0)
		}
		g.n++
		g.must(g.capture.readAlways(r, false))
		g.must(g.capture.foreign.err())
		g.must(g.capture.lookAtGrants(1))
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// grantTableSize is Xen that knows the size of a grant table: see struct
// gnttab_query_size in xen/include/public/grant_table.h.
func grantTableSize(frames uint32) *privcmd.Handle {
	var h *privcmd.Handle
	h = privcmd.Simulated(func(op uint64, a [5]uint64) (int64, syscall.Errno) {
		if op != abi.HypervisorGrantTableOp || a[0] != abi.GnttabOpQuerySize {
			return -1, syscall.ENOSYS
		}
		privcmd.StructAt[abi.GnttabQuerySize](h.At(a[1], 24)).NrFrames = frames
		return 0, 0
	})
	return h
}

// TestCheckGrants: before the first copy all frames are looked at, whether the
// guest has mapped them or not.
func TestCheckGrants(t *testing.T) {
	const frames = 4
	g := newFakeGuest(t)
	table := make([]byte, frames*abi.PageSize)
	g.capture.grants = foreignmem.FromBytes(table)
	putGrant(table, abi.GnttabReservedConsole, abi.GTFPermitAccess, 0)
	putGrant(table, abi.GnttabReservedXenstore, abi.GTFPermitAccess, 0)
	ctl, err := domctl.New(grantTableSize(frames))
	g.must(err)
	s := &Session{cfg: Config{Host: &host.Host{Ctl: ctl}, Dom: 7}, capture: g.capture}
	g.must(s.checkGrants())
	putGrant(table, 9, abi.GTFPermitAccess, 5)
	putGrant(table, frames*frameGrants-1, abi.GTFAcceptTransfer, 6)
	err = s.checkGrants()
	if !errors.Is(err, ErrForeignGrants) || !strings.Contains(err.Error(), "grant 9 to domain 5, grant 2047 to domain 6;") {
		t.Error(err)
	}
}

// TestForeignGrantEndsTheGeneration: of a protected guest that lets another domain
// at its memory nothing is released before the secondary has discarded its copy
// (I13). Then its output is, and a first copy begins, which refuses it or not.
func TestForeignGrantEndsTheGeneration(t *testing.T) {
	g := newFakeGuest(t)
	g.must(g.epochOnly(true))
	g.capture.hot = hotset.New(0)
	s, told := protecting(t, g.epoch)
	s.capture = g.capture
	putGrant(g.page(grantGFN), 9, abi.GTFPermitAccess, 5)
	s.xen, s.frozen = g.harvest(), true
	g.must(s.step(replica.Harvested{}))

	if msg := <-told; msg != (stream.Discard{Generation: 1}) {
		t.Errorf("the secondary was told %#v", msg)
	}
	if !s.frozen || !s.stopped || s.machine.Record().Phase != lease.Protecting {
		t.Error("the guest was let go before the secondary has discarded its copy")
	}
	if text := s.Status(false).Text; !strings.Contains(text, "grant 9 to domain 5") {
		t.Errorf("the operator is told %q", text)
	}
	var released, again bool
	for _, a := range s.machine.Step(replica.PeerDiscarded{Conn: 1, Generation: 1}) {
		switch a.(type) {
		case replica.ReleaseAll:
			released = true
		case replica.Connect:
			again = true
		}
	}
	if !released || !again || s.machine.Record().Generation != 2 {
		t.Errorf("released: %v, copied again: %v, %+v", released, again, s.machine.Record())
	}
}

// BenchmarkForeignGrants is what a changed line, and a whole frame, costs.
func BenchmarkForeignGrants(b *testing.B) {
	frame := make([]byte, abi.PageSize)
	for ref := range abi.GrantRef(frameGrants) {
		putGrant(frame, ref, abi.GTFPermitAccess, 0)
	}
	for name, set := range map[string]stream.LineSet{"line": 1 << 20, "frame": everyLine} {
		b.Run(name, func(b *testing.B) {
			var f foreignGrants
			for b.Loop() {
				f.look(0, frame, set)
			}
		})
	}
}
