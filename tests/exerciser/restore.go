// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"time"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/foreignmem"
	"github.com/kemari-ft/kemari/xen/kemariop"
)

// instant is what Xen has of a guest at a sync: its state, and the pages that
// Xen writes.
type instant struct {
	state *kemariop.State
	kinds map[abi.GFN]uint8
	index map[abi.GFN]uint16
	pages map[abi.GFN][]byte
}

// instant is taken of a primary; the guest runs on.
func (t *try) instant(g *guest, shared *kemariop.Shared) *instant {
	r := t.sync(g)
	b, err := shared.StateCopy(r.StateLen)
	t.must(err)
	x := &instant{kinds: map[abi.GFN]uint8{}, index: map[abi.GFN]uint16{}, pages: map[abi.GFN][]byte{}}
	x.state, err = kemariop.DecodeState(b)
	t.must(err)
	always, err := shared.Always(r.AlwaysNr)
	t.must(err)
	for _, e := range always {
		kind, index, gfn := kemariop.AlwaysEntry(e)
		if gfn == 1<<44-1 {
			continue // a grant frame that the guest has not mapped
		}
		x.kinds[gfn], x.index[gfn] = kind, index
		m := t.page(g, gfn)
		x.pages[gfn] = slices.Clone(m.Bytes())
		t.must(m.Close())
	}
	t.resume(g, r)
	return x
}

// page maps one page for writing.
func (t *try) page(g *guest, gfn abi.GFN) *foreignmem.Mapping {
	m, err := t.fm.Map(g.dom, []abi.GFN{gfn}, true)
	t.must(err)
	t.must(m.Err(0))
	return m
}

// restore puts an instant into a guest that has never run.
func (t *try) restore(g *guest, x *instant) {
	t.want("enable", g.enable(secondary, 0, 0), 0)
	for gfn, kind := range x.kinds {
		switch kind {
		case kemariop.AlwaysSharedInfo:
			t.must(t.ctl.AddToPhysmap(g.dom, abi.MapSpaceSharedInfo, 0, gfn))
		case kemariop.AlwaysGrant:
			t.must(t.ctl.AddToPhysmap(g.dom, abi.MapSpaceGrantTable, uint64(x.index[gfn]), gfn))
		case kemariop.AlwaysFIFO:
			m := t.page(g, gfn)
			clear(m.Bytes())
			t.must(m.Close())
		}
	}
	t.must(t.ctl.SetHVMContext(g.dom, x.state.HVM))
	st := *x.state
	st.HVM = nil
	t.must(g.c.SetState(st.Encode()))
	for gfn, data := range x.pages {
		if x.kinds[gfn] == kemariop.AlwaysGrant {
			continue // another domain's grants
		}
		m := t.page(g, gfn)
		copy(m.Bytes(), data)
		t.must(m.Close())
	}
	t.must(g.c.Resume())
}

// sameState compares what was set with what is read back after resume.
func (t *try) sameState(got, want *kemariop.State) {
	d := want.Domain
	d.GuestTime, d.GrantFrames = got.Domain.GuestTime, got.Domain.GrantFrames
	equal(t, "DOMAIN", got.Domain, d)
	if step := time.Duration(got.Domain.GuestTime - want.Domain.GuestTime); step < 0 || step > 10*time.Second {
		t.fail("guest time: got a step of %v, want the time since resume", step)
	}
	if !slices.Equal(got.FIFO, want.FIFO) {
		t.fail("FIFO: got %v, want %v", got.FIFO, want.FIFO)
	}
	equal(t, "vCPUs", len(got.VCPUs), len(want.VCPUs))
	for i, v := range want.VCPUs {
		g := got.VCPUs[i]
		for j := range v.RunstateTime {
			if g.RunstateTime[j] < v.RunstateTime[j] {
				t.fail("vCPU %d: got runstate times %v, want no less than %v", i, g.RunstateTime, v.RunstateTime)
			}
		}
		v.RunstateTime, v.FIFOTail = g.RunstateTime, g.FIFOTail
		if v.Flags&^g.Flags == kemariop.VCPUSshot { // expired since
			v.Flags, v.SshotExpires = g.Flags, g.SshotExpires
		}
		equal(t, "VCPU", g, v)
	}
	strip := func(list []kemariop.EvtchnRec) []kemariop.EvtchnRec {
		list = slices.Clone(list)
		for i := range list {
			e := &list[i]
			e.Pending = 0
			if e.Status == abi.EvtchnStatInterdomain {
				e.Status = abi.EvtchnStatUnbound
			}
		}
		return list
	}
	if g, w := strip(got.Evtchns), strip(want.Evtchns); !slices.Equal(g, w) {
		t.fail("EVTCHN: got %+v, want %+v", g, w)
	}
}

// soundQueues walks each queue that is ready: all its events are linked, and the
// last one is where Xen goes on. Of the others the guest alone knows the head.
func (t *try) soundQueues(g *guest, st *kemariop.State) (queued int) {
	array, err := t.fm.Map(g.dom, st.FIFO, false)
	t.must(err)
	defer array.Close()
	for _, v := range st.VCPUs {
		if v.FIFOControl == kemariop.NoAddr {
			continue
		}
		m := t.page(g, abi.GFN(v.FIFOControl>>abi.PageShift))
		q := queues{array.Bytes(), m.Bytes()[v.FIFOControl%abi.PageSize:]}
		for prio, tail := range v.FIFOTail {
			if q.ready()>>prio&1 == 0 {
				continue
			}
			ports := q.walk(prio)
			for _, p := range ports {
				if q.word(p)&wordLinked == 0 {
					t.fail("vCPU %d, queue %d %v: got word %#x of port %d, want it linked", v.ID, prio, ports, q.word(p), p)
				}
			}
			if len(ports) == 0 || uint32(ports[len(ports)-1]) != tail {
				t.fail("vCPU %d, queue %d: got %v, want port %d as the last", v.ID, prio, ports, tail)
			}
			queued += len(ports)
		}
		t.must(m.Close())
	}
	return queued
}

var restoreCases = []testCase{
	{"state-of-a-running-guest", func(t *try) {
		g := t.guest(guestSpec{running: true, vcpus: 2})
		t.say(g, "load mem=2")
		_, shared := t.primary(g, 30000, 30000)
		for range 5 {
			time.Sleep(waitShort)
			x := t.instant(g, shared)
			if len(x.state.FIFO) == 0 || len(x.state.Evtchns) < 8 {
				t.fail("state: got %+v, want that of a guest with FIFO events", x.state)
			}
			shell := t.guest(guestSpec{vcpus: 2})
			t.restore(shell, x)
			got := t.stateOf(shell)
			t.sameState(got, x.state)
			if t.soundQueues(shell, got) == 0 {
				t.fail("queues: got none with events, want at least those that resume raised")
			}
			_, err := xl("destroy", shell.name)
			t.must(err)
		}
	}},
}
