// SPDX-License-Identifier: Apache-2.0

package primary

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/kemari-ft/kemari/toolstack/guestmem"
	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/foreignmem"
)

// TestUnchangedPagesAreNotSent: a page that the guest wrote, and that is as the
// secondary has it, costs no sending.
func TestUnchangedPagesAreNotSent(t *testing.T) {
	g := newFakeGuest(t)
	g.sync()
	send := func() stream.Sent {
		r := g.harvest()
		g.must(g.capture.SetRings(g.refs))
		sent, err := g.capture.Epoch(g.writer, 1, g.epoch, r, false, nil, nil)
		g.must(err)
		g.apply()
		if unseen := g.unseen(); len(unseen) > 0 {
			t.Errorf("epoch %d: the secondary lacks the changes of gfns %v", g.epoch, unseen)
		}
		return sent
	}
	g.write(20)
	g.write(21)
	if sent := send(); sent.Pages != 2 {
		t.Fatalf("%d pages of 2 sent at first", sent.Pages)
	}
	g.write(20)
	g.dirty = append(g.dirty, 21)
	if sent := send(); sent.Pages != 0 || sent.Lines != 1 || g.capture.same != 1 {
		t.Errorf("one octet of two pages has changed: %d pages sent, lines of %d, %d said to be the same", sent.Pages, sent.Lines, g.capture.same)
	}
	for i := range 10 {
		g.page(20)[i*400]++
	}
	for i := range abi.PageSize {
		g.page(21)[i]++
	}
	g.dirty = append(g.dirty, 20, 21)
	if sent := send(); sent.Pages != 1 || sent.Lines != 1 || sent.Octets > abi.PageSize+10*10+500 {
		t.Errorf("a page and 10 lines of another one have changed: %d pages sent, lines of %d, %d octets", sent.Pages, sent.Lines, sent.Octets)
	}
}

// TestMorePagesThanPlaces: with more pages than are remembered none is taken for
// what it was when it was told of before the last time, or for another one; and
// those that are dirtied all the time are remembered.
func TestMorePagesThanPlaces(t *testing.T) {
	var k known
	page := make([]byte, abi.PageSize)
	told := map[abi.GFN]byte{}
	rnd := rand.New(rand.NewPCG(1, 2))
	for n := range 6 * knownPages {
		gfn, often := abi.GFN(rnd.IntN(2*knownPages)), n%4 == 0
		if often {
			gfn = abi.GFN(n / 4 % 64)
		}
		page[0] = byte(rnd.IntN(3))
		if n%1000 == 999 {
			k.forget(gfn)
			delete(told, gfn)
		}
		was, before := told[gfn]
		set, diff, compared := k.tell(gfn, page)
		if compared && set != 0 && !bytes.Equal(diff, append([]byte{1}, page[:8]...)) {
			t.Fatalf("gfn %#x: its first word has changed, told is %x", uint64(gfn), diff)
		}
		switch {
		case set == everyLine && before && often && n > 4*64:
			t.Fatalf("gfn %#x, which is dirtied all the time, was not remembered", uint64(gfn))
		case set == everyLine: // not remembered
		case !before, set == 0 && was != page[0], set == 1 && was == page[0], set > 1:
			t.Fatalf("gfn %#x: lines %#x, told before: %v, %d; now %d", uint64(gfn), uint64(set), before, was, page[0])
		}
		told[gfn] = page[0]
	}
	if len(k.places) > knownPages {
		t.Errorf("%d pages in %d places", len(k.places), knownPages)
	}
	k.forgetAll()
	if set, _, _ := k.tell(1, page); set != everyLine {
		t.Error("a page is remembered after all were forgotten")
	}
}

// Warm are pages that are remembered and had changed when they were listed last.
func TestWarmPages(t *testing.T) {
	var k known
	page := make([]byte, abi.PageSize)
	want := func(what string, gfns ...abi.GFN) {
		t.Helper()
		if got := k.appendWarm(nil); !slices.Equal(got, gfns) {
			t.Errorf("%s: warm are %v, want %v", what, got, gfns)
		}
	}
	want("at first")
	k.tell(20, page)
	k.tell(10, page)
	want("written", 10, 20)
	k.tell(20, page)
	want("one as it was", 10)
	page[0]++
	k.tell(20, page)
	k.tell(10, page)
	want("both have changed", 10, 20)
	k.forget(10)
	want("one is forgotten", 20)
	for gfn := range abi.GFN(2 * knownPages) {
		k.tell(gfn, page)
	}
	if n := len(k.appendWarm(nil)); n != knownPages {
		t.Errorf("of many pages %d are warm, want the %d that are remembered", n, knownPages)
	}
	k.forgetAll()
	want("all are forgotten")
}

// I4: a page that was Xen's for a while is not what it was before that.
func TestI4PageThatWasXensMeanwhile(t *testing.T) {
	g := newFakeGuest(t)
	g.sync()
	move := func() {
		g.named[4] ^= named(stream.AlwaysVCPU, vcpuInfoGFN) ^ named(stream.AlwaysVCPU, otherInfoGFN)
	}
	g.write(otherInfoGFN)
	before := bytes.Clone(g.page(otherInfoGFN))
	g.sync()
	move()
	g.scribble(otherInfoGFN)
	g.sync()
	move()
	copy(g.page(otherInfoGFN), before)
	g.dirty = append(g.dirty, otherInfoGFN)
	g.sync()
	if unseen := g.unseen(); len(unseen) > 0 {
		t.Errorf("the secondary lacks the changes of gfns %v", unseen)
	}
}

// I4: what was sent once and then something else is sent again.
func TestI4WrittenBack(t *testing.T) {
	for _, octets := range []int{1, abi.PageSize} {
		g := newFakeGuest(t)
		g.sync()
		g.write(20)
		g.sync()
		before := bytes.Clone(g.page(20))
		for i := range octets {
			g.page(20)[i]++
		}
		g.dirty = append(g.dirty, 20)
		g.sync()
		copy(g.page(20), before)
		g.dirty = append(g.dirty, 20)
		g.sync()
		if unseen := g.unseen(); len(unseen) > 0 {
			t.Errorf("%d octets: the secondary lacks the changes of gfns %v", octets, unseen)
		}
	}
}

// I4: what is remembered of the secondary's pages never hides a change, whatever
// becomes of the pages and of the epochs that told of them.
func TestI4RememberedPagesHideNothing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		g := newFakeGuest(t)
		g.sync()
		gfn := rapid.OneOf(
			rapid.SampledFrom([]abi.GFN{20, 21, guestPages - 1}),
			rapid.SampledFrom([]abi.GFN{vcpuInfoGFN, otherInfoGFN, ring1GFN, otherRingGFN}),
		)
		var old [abi.PageSize]byte
		for range rapid.IntRange(1, 12).Draw(rt, "epochs") {
			for range rapid.IntRange(0, 6).Draw(rt, "writes") {
				at := gfn.Draw(rt, "gfn")
				page := g.page(at)
				switch rapid.IntRange(0, 3).Draw(rt, "how") {
				case 0:
					g.write(at)
				case 1: // written with what it holds
					g.dirty = append(g.dirty, at)
				case 2: // written with what another page holds, or zeros
					copy(page, old[:])
					g.dirty = append(g.dirty, at)
				case 3:
					copy(old[:], page)
				}
			}
			switch rapid.IntRange(0, 6).Draw(rt, "event") {
			case 2: // a ring is connected anew, with the same page
				g.refs[0] ^= 1 ^ 3
			case 3: // a disk of a lower handle comes or goes
				slices.Reverse(g.refs)
			case 0: // Xen's page moves
				g.named[4] ^= named(stream.AlwaysVCPU, vcpuInfoGFN) ^ named(stream.AlwaysVCPU, otherInfoGFN)
			case 1: // the epoch is lost with its connection, and sent again
				r := g.harvest()
				g.must(g.capture.SetRings(g.refs))
				_, err := g.capture.Epoch(stream.NewWriter(io.Discard), 1, g.epoch, r, false, nil, nil)
				g.must(err)
				g.capture.Forget()
				_, err = g.capture.Epoch(g.writer, 1, g.epoch, r, false, nil, nil)
				g.must(err)
				g.apply()
				continue
			}
			g.sync()
			if unseen := g.unseen(); len(unseen) > 0 {
				rt.Fatalf("epoch %d: the secondary lacks the changes of gfns %v", g.epoch, unseen)
			}
		}
	})
}

// BenchmarkWritePages is what becomes of dirtied pages in the pause, without their
// way to the other host: to be compared with copying as many.
func BenchmarkWritePages(b *testing.B) {
	const pages = 400
	mem := make([]byte, pages*abi.PageSize)
	c := &Capture{mem: guestmem.FromMapping(0, foreignmem.FromBytes(mem))}
	w := stream.NewWriter(io.Discard)
	for _, lines := range []int{0, 1, 5, 64} {
		b.Run(fmt.Sprintf("lines=%d", lines), func(b *testing.B) {
			b.SetBytes(int64(len(mem)))
			b.ReportAllocs()
			for epoch := uint64(2); b.Loop(); epoch++ {
				b.StopTimer()
				c.pages = c.pages[:0]
				for gfn := range abi.GFN(pages) {
					c.pages = append(c.pages, gfn)
					for i := range lines {
						mem[int(gfn)*abi.PageSize+i*stream.LineSize]++
					}
				}
				if err := w.Begin(1, epoch, false); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				if err := c.writePages(w); err != nil {
					b.Fatal(err)
				}
				if _, err := w.End(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
