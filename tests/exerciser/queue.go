// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"slices"
	"syscall"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/kemariop"
)

// Bits of a FIFO event word, and its link (xen/include/public/event_channel.h).
const (
	wordPending = 1 << 31
	wordMasked  = 1 << 30
	wordLinked  = 1 << 29
	wordLink    = 1<<17 - 1

	defaultPriority = 7
)

// Where the guest of these cases has its event array and control block.
const (
	arrayGFN   = someGFN
	controlGFN = someGFN + 1
)

// fifoState changes the state of a guest that has never run into that of one
// with FIFO events, sparse ports, and a queue of ports 100, 300, 700.
func fifoState(st *kemariop.State) {
	st.Domain.EvtchnABI = kemariop.EvtchnFIFO
	st.FIFO = []abi.GFN{arrayGFN}
	v := &st.VCPUs[0]
	v.FIFOControl = uint64(controlGFN) << abi.PageShift
	v.FIFOTail[defaultPriority] = 700
	for i := range st.Evtchns { // the 2-level ABI knows no priorities
		st.Evtchns[i].Priority, st.Evtchns[i].LastqPrio = defaultPriority, defaultPriority
	}
	for _, e := range []kemariop.EvtchnRec{
		{Port: 100, Status: abi.EvtchnStatUnbound},
		{Port: 300, Status: abi.EvtchnStatIPI},
		{Port: 301, Status: abi.EvtchnStatVIRQ}, // VIRQ_TIMER
		{Port: 500, Status: abi.EvtchnStatUnbound, Priority: 3},
		{Port: 700, Status: abi.EvtchnStatUnbound},
	} {
		if e.Priority == 0 {
			e.Priority = defaultPriority
		}
		e.LastqPrio = e.Priority
		st.Evtchns = append(st.Evtchns, e)
	}
}

// queues shows a guest's event array and control block.
type queues struct{ array, control []byte }

func (q queues) word(p abi.Port) uint32 { return binary.LittleEndian.Uint32(q.array[4*p:]) }

func (q queues) set(p abi.Port, word uint32) { binary.LittleEndian.PutUint32(q.array[4*p:], word) }

func (q queues) ready() uint32 { return binary.LittleEndian.Uint32(q.control) }

func (q queues) head(prio int) abi.Port {
	return abi.Port(binary.LittleEndian.Uint32(q.control[8+4*prio:]))
}

func (q queues) setHead(prio int, p abi.Port) {
	binary.LittleEndian.PutUint32(q.control[8+4*prio:], uint32(p))
	binary.LittleEndian.PutUint32(q.control, q.ready()|1<<prio)
}

// walk follows a queue as the guest would.
func (q queues) walk(prio int) (ports []abi.Port) {
	for p := q.head(prio); p != 0 && len(ports) < 1024; p = abi.Port(q.word(p) & wordLink) {
		ports = append(ports, p)
	}
	return ports
}

func (t *try) queues(g *guest) queues {
	m, err := t.fm.Map(g.dom, []abi.GFN{arrayGFN, controlGFN}, true)
	t.must(err)
	t.must(m.Err(0))
	t.must(m.Err(1))
	t.later(func() { m.Close() })
	clear(m.Bytes())
	return queues{m.Page(0), m.Page(1)}
}

// restored makes a guest with fifoState, up to resume.
func (t *try) restored() (*guest, queues, *kemariop.State) {
	g := t.guest(guestSpec{})
	st := t.stateOf(g)
	fifoState(st)
	q := t.queues(g)
	t.want("enable", g.enable(secondary, 0, 0), 0)
	if errno := t.records(g, st.Encode()); errno != 0 {
		t.fail("set_state: got %s, want success", answer(errno))
		panic(stop{})
	}
	// The images of these pages come after the state.
	q.set(100, wordPending|wordLinked|300)
	q.set(300, wordPending|wordLinked|700)
	q.set(700, wordPending|wordLinked)
	q.set(500, wordMasked)
	q.setHead(defaultPriority, 100)
	return g, q, st
}

var queueCases = []testCase{
	{"time-area-by-linear-address", func(t *try) {
		// Whose address it is depends on who runs: not the toolstack's.
		g := t.guest(guestSpec{})
		st := t.stateOf(g)
		page, err := t.hc.Alloc(abi.PageSize)
		t.must(err)
		defer page.Free()
		st.VCPUs[0].TimeArea = page.Addr()
		t.want("enable", g.enable(secondary, 0, 0), 0)
		t.want("set_state", t.records(g, st.Encode()), 0)
		t.want("resume", g.op(opResume, 0), 0)
		for i, b := range page.Bytes() {
			if b != 0 {
				t.fail("Xen wrote to the toolstack's memory, at octet %d", i)
				break
			}
		}
	}},
	{"global-virq-on-another-vcpu", func(t *try) {
		// A guest may bind VIRQ_ARGO and the like to any vCPU.
		const virqARGO = 11
		g := t.guest(guestSpec{vcpus: 2})
		st := t.stateOf(g)
		st.Evtchns = append(st.Evtchns, kemariop.EvtchnRec{Port: 40, Status: abi.EvtchnStatVIRQ, VCPU: 1, VIRQOrRemote: virqARGO})
		t.want("enable", g.enable(secondary, 0, 0), 0)
		t.want("set_state", t.records(g, st.Encode()), 0)
		t.want("resume", g.op(opResume, 0), 0)
		got, err := t.ctl.EvtchnStatus(g.dom, 40)
		t.must(err)
		equal(t, "status", got.Status, uint32(abi.EvtchnStatVIRQ))
		equal(t, "vCPU", got.VCPU, abi.VCPU(1))
	}},
	{"sparse-ports", func(t *try) {
		g, _, st := t.restored()
		for port := abi.Port(1); port <= 1023; port++ {
			want := domctlStatus(st, port)
			got, err := t.ctl.EvtchnStatus(g.dom, port)
			if err != nil { // beyond the last port
				got.Status = abi.EvtchnStatClosed
			}
			if got.Status != want && !(want == abi.EvtchnStatUnbound && got.Status == abi.EvtchnStatInterdomain) {
				t.fail("port %d: got status %d, want %d", port, got.Status, want)
			}
		}
		ev := t.listen()
		for _, p := range []abi.Port{100, 500, 700} {
			_, err := ev.BindInterdomain(g.dom, p)
			t.wantErr("bind", err, 0)
		}
		_, err := ev.BindInterdomain(g.dom, 300)
		t.wantErr("bind to an IPI", err, syscall.EINVAL)
		p, err := t.ctl.AllocUnbound(g.dom, abi.Dom0)
		t.must(err)
		equal(t, "next port of the guest: the lowest that is free", p, abi.Port(3))
	}},
	{"half-consumed-queue", func(t *try) {
		g, q, _ := t.restored()
		ev := t.listen()
		local, err := ev.BindInterdomain(g.dom, 500)
		t.must(err)
		t.must(ev.Notify(local))
		equal(t, "queue before resume", len(q.walk(defaultPriority)), 3)
		t.want("resume", g.op(opResume, 0), 0)
		// What was queued stays where it is; what resume raises comes after.
		ports := q.walk(defaultPriority)
		if len(ports) != 6 || !slices.Equal(ports[:3], []abi.Port{100, 300, 700}) {
			t.fail("queue: got %v, want 100 300 700 and then 1, 2 and 301", ports)
		}
		rest := slices.Clone(ports[min(3, len(ports)):])
		slices.Sort(rest)
		if !slices.Equal(rest, []abi.Port{1, 2, 301}) {
			t.fail("raised by resume: got %v, want 1 2 301", rest)
		}
		for _, p := range ports {
			if q.word(p)&^wordLink != wordPending|wordLinked {
				t.fail("word of port %d: got %#x, want it pending and linked", p, q.word(p))
			}
		}
		equal(t, "ready queues", q.ready(), 1<<defaultPriority)
		equal(t, "masked port", q.word(500), uint32(wordPending|wordMasked))
		// The guest consumes all but the last, which Xen then links to.
		last := ports[len(ports)-1]
		for _, p := range ports {
			q.set(p, 0)
		}
		q.set(last, wordPending|wordLinked)
		q.setHead(defaultPriority, last)
		other, err := ev.BindInterdomain(g.dom, 700)
		t.must(err)
		t.must(ev.Notify(other))
		if got := q.walk(defaultPriority); !slices.Equal(got, []abi.Port{last, 700}) {
			t.fail("queue after one more event: got %v, want %d 700", got, last)
		}
	}},
	{"get-after-set", func(t *try) {
		// What was set is what is read back, but for what resume changes.
		g, q, want := t.restored()
		t.want("resume", g.op(opResume, 0), 0)
		got := t.stateOf(g)
		ports := q.walk(defaultPriority)
		equal(t, "FIFO tail", got.VCPUs[0].FIFOTail[defaultPriority], uint32(ports[len(ports)-1]))
		v := want.VCPUs[0]
		v.FIFOTail, v.RunstateTime = got.VCPUs[0].FIFOTail, got.VCPUs[0].RunstateTime
		equal(t, "VCPU", got.VCPUs[0], v)
		if !slices.Equal(got.FIFO, want.FIFO) {
			t.fail("FIFO: got %v, want %v", got.FIFO, want.FIFO)
		}
		if !slices.Equal(got.Evtchns, want.Evtchns) {
			t.fail("EVTCHN: got %+v, want %+v", got.Evtchns, want.Evtchns)
		}
		if got.Domain.GuestTime <= want.Domain.GuestTime {
			t.fail("guest time: got %d, want more than %d", got.Domain.GuestTime, want.Domain.GuestTime)
		}
		d := want.Domain
		d.GuestTime = got.Domain.GuestTime
		equal(t, "DOMAIN", got.Domain, d)
	}},
	{"fifo-pages-that-are-holes", func(t *try) {
		for _, spoil := range []func(st *kemariop.State){
			func(st *kemariop.State) { st.FIFO[0] = 0x80000 },
			func(st *kemariop.State) { st.VCPUs[0].FIFOControl = 0x80000 << abi.PageShift },
		} {
			g := t.guest(guestSpec{})
			st := t.stateOf(g)
			fifoState(st)
			t.queues(g)
			spoil(st)
			t.want("enable", g.enable(secondary, 0, 0), 0)
			t.want("set_state", t.records(g, st.Encode()), syscall.EINVAL)
			t.want("disable", g.disable(), syscall.EBUSY) // it is half a guest
		}
	}},
}

// domctlStatus is what EVTCHNOP_status tells of a port of st.
func domctlStatus(st *kemariop.State, port abi.Port) uint32 {
	for _, e := range st.Evtchns {
		if e.Port == port {
			return uint32(e.Status)
		}
	}
	return abi.EvtchnStatClosed
}
