// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"bytes"
	"testing"

	"github.com/kemari-ft/kemari/toolstack/lease"
	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/xen/abi"
)

// wire is one connection's worth of records, through the real codec.
type wire struct {
	t   *testing.T
	buf bytes.Buffer
	w   *stream.Writer
	r   *stream.Reader
}

func newWire(t *testing.T) *wire {
	c := &wire{t: t}
	c.w = stream.NewWriter(&c.buf)
	c.r = stream.NewReader(&c.buf, stream.Primary, stream.Limits{EpochPages: 8, MemoryPages: 8, MaxGFN: 64}, stream.NewPool())
	c.must(c.w.Hello(stream.Hello{Role: stream.Primary, Guest: guestID, Generation: 1}))
	c.must(c.w.Shell(stream.Shell{VCPUs: 1, EpochPages: 8, MemoryPages: 8, MaxGFN: 64}))
	return c
}

func (c *wire) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *wire) epoch(k uint64, always []stream.AlwaysPage, xenstore string, lines ...abi.GFN) *stream.Epoch {
	c.must(c.w.Begin(1, k, k == 1))
	c.must(c.w.Always(always))
	c.must(c.w.Page(abi.GFN(k), bytes.Repeat([]byte{byte(k)}, abi.PageSize)))
	for _, gfn := range lines {
		c.must(c.w.Lines(gfn, 1, append([]byte{1}, make([]byte, 8)...)))
	}
	c.must(c.w.State([]byte{byte(k)}))
	c.must(c.w.Rings([]stream.Ring{{Class: stream.RingVBD, RspProd: uint32(k), ReqProd: uint32(k) + 1}}))
	if xenstore != "" {
		c.must(c.w.Xenstore([]byte(xenstore)))
	}
	_, err := c.w.End()
	c.must(err)
	for {
		msg, err := c.r.Next()
		c.must(err)
		if e, ok := msg.(*stream.Epoch); ok {
			return e
		}
	}
}

// TestI7Stage: always-sent pages stay in the stage, which at every time holds
// all of the newest acknowledged epoch, and nothing of one that was dropped.
func TestI7Stage(t *testing.T) {
	c := newWire(t)
	s := NewSecondary(guestID, true, lease.Record{})
	s.Step(PeerHello{1, &stream.Hello{Guest: guestID, Generation: 1}})
	s.Step(ShellDescribed{1, &stream.Shell{}})
	image := func(seed byte) []byte { return bytes.Repeat([]byte{seed}, abi.PageSize) }
	store := func(data []byte) stream.AlwaysPage {
		return stream.AlwaysPage{Kind: stream.AlwaysStore, GFN: 50, Data: data}
	}
	grant := func(data []byte) stream.AlwaysPage {
		return stream.AlwaysPage{Kind: stream.AlwaysGrant, Index: 1, GFN: 60, Data: data}
	}
	want := func(k uint64, xenstore string, pages ...stream.AlwaysPage) {
		t.Helper()
		st := s.Stage()
		if s.Image().Acked != k || st.State[0] != byte(k) || st.Rings[0].RspProd != uint32(k) || string(st.Xenstore) != xenstore {
			t.Fatalf("after epoch %d: image %+v, state %v, rings %v, xenstore %q", k, s.Image(), st.State, st.Rings, st.Xenstore)
		}
		if len(st.Always) != len(pages) {
			t.Fatalf("%d always-sent pages, want %d", len(st.Always), len(pages))
		}
		for i, p := range pages {
			if st.Always[i].GFN != p.GFN || !bytes.Equal(st.Always[i].Data, p.Data) {
				t.Fatalf("always-sent page %d is gfn %d with %d", i, st.Always[i].GFN, st.Always[i].Data[0])
			}
		}
	}
	step := func(e *stream.Epoch) {
		t.Helper()
		for _, a := range s.Step(EpochArrived{1, e}) {
			apply, ok := a.(Apply)
			if !ok {
				continue
			}
			if gfn, _ := apply.Epoch.Page(0); apply.Epoch.Pages() != 1 || gfn != abi.GFN(apply.Epoch.Number) {
				t.Fatalf("the shell gets page %d of %d", gfn, apply.Epoch.Pages())
			}
			apply.Epoch.Release()
		}
	}
	step(c.epoch(1, []stream.AlwaysPage{store(image(1))}, "one"))
	want(1, "one", store(image(1)))
	step(c.epoch(2, []stream.AlwaysPage{store(nil), grant(image(2))}, ""))
	want(2, "one", store(image(1)), grant(image(2)))
	changed := image(1)
	copy(changed[stream.LineSize:], image(3)[:stream.LineSize])
	set, diff := stream.Diff(nil, image(1), changed)
	lines := stream.AlwaysPage{Kind: stream.AlwaysStore, GFN: 50, Lines: set, Data: diff}
	step(c.epoch(3, []stream.AlwaysPage{lines}, "three"))
	want(3, "three", store(changed))
	if n := len(s.stage.images); n != 1 {
		t.Errorf("%d images are kept, 1 is used", n)
	}
	// The grant frame is not there any more: its contents cannot be old ones.
	step(c.epoch(4, []stream.AlwaysPage{store(image(4)), grant(nil)}, ""))
	want(3, "three", store(changed))
	// The shell has never had what was in this page.
	s.Step(PeerHello{2, &stream.Hello{Guest: guestID, Generation: 1}})
	drop := c.epoch(5, nil, "", 50)
	drop.Number = 4
	s.Step(EpochArrived{2, drop})
	want(3, "three", store(changed))
	s.Step(PeerHello{3, &stream.Hello{Guest: guestID, Generation: 1}})
	drop = c.epoch(6, []stream.AlwaysPage{{Kind: stream.AlwaysStore, GFN: 51, Lines: set, Data: diff}}, "")
	drop.Number = 4
	s.Step(EpochArrived{3, drop})
	want(3, "three", store(changed))
	if s.Dropped() != 3 {
		t.Errorf("%d dropped, want 3", s.Dropped())
	}
}

func TestIncompatible(t *testing.T) {
	a := stream.Hello{Role: stream.Primary, ABI: 1, Host: [16]byte{1}, DomID: 5, CPUVendor: "AuthenticAMD", XenVersion: "4.20.0"}
	b := a
	b.Role, b.Host = stream.Secondary, [16]byte{2}
	if r := Incompatible(&a, &b); len(r) != 0 {
		t.Errorf("a good pair: %q", r)
	}
	b.ABI, b.CPUVendor, b.XenVersion, b.DomID = 2, "GenuineIntel", "4.19.1", 6
	if r := Incompatible(&a, &b); len(r) != 4 {
		t.Errorf("want every reason at once, got %q", r)
	}
}
