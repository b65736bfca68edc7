// SPDX-License-Identifier: Apache-2.0

package primary

import (
	"bytes"
	"io"
	"testing"

	"pgregory.net/rapid"

	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/xen/abi"
)

// TestUnchangedPagesAreNotSent: a page that the guest wrote, and that is as the
// secondary has it, costs no sending.
func TestUnchangedPagesAreNotSent(t *testing.T) {
	g := newFakeGuest(t)
	g.sync()
	send := func() stream.Sent {
		r := g.harvest()
		g.must(g.capture.SetRings([]abi.GrantRef{1, 2}))
		sent, err := g.capture.Epoch(g.writer, 1, g.epoch, r, false, nil, nil)
		g.must(err)
		g.apply()
		return sent
	}
	g.write(20)
	g.write(21)
	if sent := send(); sent.Pages != 2 {
		t.Fatalf("%d pages of 2 sent at first", sent.Pages)
	}
	g.write(20)
	g.dirty = append(g.dirty, 21)
	if sent := send(); sent.Pages != 1 || g.capture.same != 1 {
		t.Errorf("one page of two is another one: %d sent, %d said to be the same", sent.Pages, g.capture.same)
	}
	if unseen := g.unseen(); len(unseen) > 0 {
		t.Errorf("the secondary lacks the changes of gfns %v", unseen)
	}
}

// TestPagesOfOnePlace: gfns that share a place are not taken for each other.
func TestPagesOfOnePlace(t *testing.T) {
	var k known
	page := make([]byte, abi.PageSize)
	for i, gfn := range []abi.GFN{0, knownPages, 2 * knownPages, 0, knownPages} {
		if k.tell(gfn, page) {
			t.Errorf("call %d: gfn %#x is said to be known", i, uint64(gfn))
		}
	}
	k.forget(0)
	if !k.tell(knownPages, page) {
		t.Error("to forget one gfn made another one of its place unknown")
	}
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
			switch rapid.IntRange(0, 4).Draw(rt, "event") {
			case 0: // Xen's page moves
				g.named[4] ^= named(stream.AlwaysVCPU, vcpuInfoGFN) ^ named(stream.AlwaysVCPU, otherInfoGFN)
			case 1: // the epoch is lost with its connection, and sent again
				r := g.harvest()
				g.must(g.capture.SetRings([]abi.GrantRef{1, 2}))
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
