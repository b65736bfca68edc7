// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"syscall"
	"time"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/evtchn"
	"github.com/kemari-ft/kemari/xen/foreignmem"
	"github.com/kemari-ft/kemari/xen/kemariop"
)

const (
	waitShort = 200 * time.Millisecond
	waitLong  = 20 * time.Second // the lab emulates its processors
)

func (t *try) cpuTime(g *guest) time.Duration {
	i, err := t.ctl.DomainInfo(g.dom)
	t.must(err)
	return i.CPUTime
}

// pausedFor expects that the guest has not run since cpuTime was before.
func (t *try) pausedFor(g *guest, after string, before time.Duration) {
	time.Sleep(waitShort)
	if now := t.cpuTime(g); now != before {
		t.fail("after %s: got a guest that ran for %v, want a paused one", after, now-before)
	}
}

// listener is a handle for event channels, and what came in on them.
type listener struct {
	*evtchn.Handle
	fired chan abi.Port
}

// listen opens a handle, which is closed at the end of the case.
func (t *try) listen() *listener {
	h, err := evtchn.Open()
	t.must(err)
	t.later(func() { h.Close() }) // it may be closed
	l := &listener{h, make(chan abi.Port, 64)}
	go func() {
		buf := make([]abi.Port, 8)
		for {
			n, err := h.Wait(buf)
			if err != nil {
				return
			}
			for _, p := range buf[:n] {
				l.fired <- p
			}
		}
	}()
	return l
}

// notified tells whether the local port fires in time.
func (l *listener) notified(port abi.Port, within time.Duration) bool {
	for end := time.After(within); ; {
		select {
		case p := <-l.fired:
			l.Unmask(p)
			if p == port {
				return true
			}
		case <-end:
			return false
		}
	}
}

// notification binds the port which Xen fires at a trigger.
func (t *try) notification(g *guest, s kemariop.Status) (*listener, abi.Port) {
	ev := t.listen()
	local, err := ev.BindInterdomain(g.dom, s.Port)
	t.must(err)
	ev.notified(local, waitShort) // binding makes it pending
	return ev, local
}

func (t *try) consolePort(g *guest) abi.Port {
	p, err := t.ctl.GetHVMParam(g.dom, abi.HVMParamConsoleEvtchn)
	t.must(err)
	return abi.Port(p)
}

// pendingBits maps shared_info of a guest that has never run and shows whether
// a port is pending (struct shared_info in xen/include/public/xen.h).
func (t *try) pendingBits(g *guest) func(abi.Port) bool {
	const gfn, offset = 0x3f00, 32 * 64
	t.must(t.ctl.AddToPhysmap(g.dom, abi.MapSpaceSharedInfo, 0, gfn))
	m, err := t.fm.Map(g.dom, []abi.GFN{gfn}, false)
	t.must(err)
	t.must(m.Err(0))
	t.later(func() { m.Close() })
	return func(p abi.Port) bool { return pendingBit(m, offset, p) }
}

func pendingBit(m *foreignmem.Mapping, offset int, p abi.Port) bool {
	return binary.LittleEndian.Uint64(m.Bytes()[offset+int(p)/64*8:])>>(p%64)&1 != 0
}

var eventCases = []testCase{
	{"held-event-triggers", func(t *try) {
		g := t.guest(guestSpec{running: true})
		s, shared := t.primary(g, 30000, 30000)
		ev, local := t.notification(g, s)
		console := t.consolePort(g)
		for range 3 {
			if !ev.notified(local, waitLong) {
				t.fail("notification: got none, want one: the guest prints 10 lines a second")
				return
			}
			equal(t, "state", t.state(g), triggered|held)
			trigger, port := shared.Trigger()
			equal(t, "trigger", trigger, kemariop.TriggerEvent)
			equal(t, "port", port, console)
			before := t.cpuTime(g)
			t.pausedFor(g, "a trigger", before)
			t.want("release before the sync", g.release(0, out|unpause), syscall.EINVAL)
			r := t.sync(g)
			equal(t, "console port used", shared.Used(console), true)
			equal(t, "state", t.state(g), triggered|frozen|harvested|held)
			t.resume(g, r)
		}
	}},
	{"freeze-only-keeps-holding", func(t *try) {
		// OUT after a freeze without harvest lets the events go: reads only.
		g := t.guest(guestSpec{running: true})
		s, _ := t.primary(g, 30000, 30000)
		ev, local := t.notification(g, s)
		if !ev.notified(local, waitLong) {
			t.fail("notification: got none, want one")
			return
		}
		_, errno := g.sync(freeze)
		t.want("freeze", errno, 0)
		equal(t, "state", t.state(g), triggered|frozen|held)
		t.want("release", g.release(0, out|unpause), 0)
		if !ev.notified(local, waitLong) {
			t.fail("second notification: got none, want one")
		}
	}},
	{"passed-event", func(t *try) {
		g := t.guest(guestSpec{running: true})
		s, shared := t.primary(g, 30000, 30000)
		console := t.consolePort(g)
		t.must(g.c.Tap(console, kemariop.TapPass))
		ev, local := t.notification(g, s)
		r := t.sync(g) // what was held before
		t.resume(g, r)
		if ev.notified(local, 2*time.Second) {
			trigger, port := shared.Trigger()
			t.fail("passed events: got a trigger (%v, port %d), want none", trigger, port)
			return
		}
		equal(t, "state", t.state(g), 0)
		r = t.sync(g)
		equal(t, "console port used", shared.Used(console), true)
		t.resume(g, r)
	}},
	{"uncommitted-holds-without-pause", func(t *try) {
		g := t.guest(guestSpec{running: true})
		s, shared := t.primary(g, 30000, 30000)
		ev, local := t.notification(g, s)
		for range 3 {
			r := t.sync(g)
			ev.notified(local, waitShort) // of a trigger before the sync
			t.must(g.c.Release(r.Epoch, kemariop.ReleaseUnpause))
			before := t.cpuTime(g)
			t.eventually("held events", waitLong, func() bool {
				// The guest gets on only if no one paused it.
				return t.state(g) == harvested|uncommitted|held && t.cpuTime(g) > before
			})
			if ev.notified(local, waitShort) {
				t.fail("uncommitted: got a notification, want none")
			}
			_, errno := g.sync(harvest)
			t.want("sync", errno, syscall.EBUSY)
			t.must(g.c.Release(r.Epoch, kemariop.ReleaseOut))
			equal(t, "state after OUT", t.state(g), triggered|held)
			trigger, _ := shared.Trigger()
			equal(t, "trigger", trigger, kemariop.TriggerHeld)
			if !ev.notified(local, waitLong) {
				t.fail("notification after OUT: got none, want one")
			}
			t.resume(g, t.sync(g))
		}
	}},
	{"incoming-event-is-parked", func(t *try) {
		g := t.guest(guestSpec{})
		pending := t.pendingBits(g)
		p, err := t.ctl.AllocUnbound(g.dom, abi.Dom0)
		t.must(err)
		ev := t.listen()
		local, err := ev.BindInterdomain(g.dom, p)
		t.must(err)
		equal(t, "pending after the bind", pending(p), false)
		t.primary(g, 64, 32)
		_, errno := g.sync(freeze)
		t.want("freeze", errno, 0)
		t.must(ev.Notify(local))
		equal(t, "pending while frozen", pending(p), false)
		t.want("release", g.release(0, out|unpause), 0)
		equal(t, "pending after release", pending(p), true)
	}},
	{"disable-delivers-parked", func(t *try) {
		g := t.guest(guestSpec{})
		pending := t.pendingBits(g)
		p, err := t.ctl.AllocUnbound(g.dom, abi.Dom0)
		t.must(err)
		ev := t.listen()
		local, err := ev.BindInterdomain(g.dom, p)
		t.must(err)
		t.want("enable", g.enable(secondary, 0, 0), 0)
		t.must(ev.Notify(local))
		equal(t, "pending in a secondary", pending(p), false)
		t.want("disable", g.disable(), 0)
		equal(t, "pending after disable", pending(p), true)
	}},
	{"parked-port-closed", func(t *try) {
		// The peer goes away while its event is parked.
		g := t.guest(guestSpec{})
		p, err := t.ctl.AllocUnbound(g.dom, abi.Dom0)
		t.must(err)
		ev := t.listen()
		local, err := ev.BindInterdomain(g.dom, p)
		t.must(err)
		t.primary(g, 64, 32)
		r := t.sync(g)
		t.must(ev.Notify(local))
		t.must(ev.Unbind(local))
		t.resume(g, r)
		equal(t, "state", t.state(g), 0)
	}},
	{"notification-without-listener", func(t *try) {
		// Nobody has bound the port; a daemon that was restarted binds it again.
		g := t.guest(guestSpec{})
		s, shared := t.primary(g, 4, 1)
		t.fill(g)
		equal(t, "state", t.state(g), triggered)
		trigger, _ := shared.Trigger()
		equal(t, "trigger", trigger, kemariop.TriggerMark)
		for range 2 {
			ev := t.listen()
			local, err := ev.BindInterdomain(g.dom, s.Port)
			t.must(err)
			if !ev.notified(local, waitLong) {
				t.fail("binding after the trigger: got no event, want one")
			}
			t.must(ev.Close())
		}
		t.resume(g, t.sync(g))
		ev, local := t.notification(g, s)
		t.fill(g)
		if !ev.notified(local, waitLong) {
			t.fail("bound a third time: got no event, want one")
		}
	}},
}
