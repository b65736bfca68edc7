// SPDX-License-Identifier: Apache-2.0

package main

import (
	"syscall"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/kemariop"
)

const (
	triggered   = kemariop.StateTriggered
	frozen      = kemariop.StateFrozen
	harvested   = kemariop.StateHarvested
	uncommitted = kemariop.StateUncommitted
	held        = kemariop.StateHeld
)

var stateCases = []testCase{
	{"harvest-release", func(t *try) {
		g := t.guest(guestSpec{})
		t.primary(g, 64, 32)
		for want := uint64(1); want <= 3; want++ {
			epoch, errno := g.sync(harvest)
			t.want("sync", errno, 0)
			equal(t, "epoch", epoch, want)
			equal(t, "state", t.state(g), triggered|frozen|harvested)
			t.want("release", g.release(epoch, out|unpause), 0)
			equal(t, "state after release", t.state(g), 0)
		}
	}},
	{"release-without-sync", func(t *try) {
		g := t.guest(guestSpec{})
		t.primary(g, 64, 32)
		for _, flags := range []uint32{out, unpause, out | unpause} {
			t.want("release", g.release(0, flags), syscall.EINVAL)
		}
	}},
	{"release-arguments", func(t *try) {
		g := t.guest(guestSpec{})
		t.primary(g, 64, 32)
		epoch, errno := g.sync(harvest)
		t.want("sync", errno, 0)
		t.want("no flag", g.release(epoch, 0), syscall.EINVAL)
		t.want("unknown flag", g.release(epoch, out|unpause|4), syscall.EINVAL)
		t.want("OUT of what is frozen", g.release(epoch, out), syscall.EINVAL)
		for _, e := range []uint64{0, epoch + 1, epoch | 1<<32, ^uint64(0)} {
			t.want("wrong epoch", g.release(e, out|unpause), syscall.EILSEQ)
			t.want("wrong epoch, uncommitted", g.release(e, unpause), syscall.EILSEQ)
		}
		equal(t, "state", t.state(g), triggered|frozen|harvested)
		t.want("release", g.release(epoch, out|unpause), 0)
		t.want("again", g.release(epoch, out|unpause), syscall.EINVAL)
	}},
	{"sync-arguments", func(t *try) {
		g := t.guest(guestSpec{})
		t.primary(g, 64, 32)
		_, errno := g.sync(2)
		t.want("unknown flag", errno, syscall.EINVAL)
		_, errno = g.sync(harvest | 1<<31)
		t.want("unknown flag beside a known one", errno, syscall.EINVAL)
		equal(t, "state", t.state(g), 0)
		for op := uint32(0); op <= opHot; op++ {
			if op != opSync && op != opRelease {
				t.want("flags of another operation", g.op(op, 1, kemariop.InterfaceVersion, primary, 8, 4), syscall.EINVAL)
			}
		}
	}},
	{"sync-twice", func(t *try) {
		g := t.guest(guestSpec{})
		t.primary(g, 64, 32)
		epoch, errno := g.sync(harvest)
		t.want("first", errno, 0)
		for _, flags := range []uint32{freeze, harvest} {
			_, errno = g.sync(flags)
			t.want("harvested already", errno, syscall.EBUSY)
		}
		t.want("release", g.release(epoch, out|unpause), 0)
	}},
	{"freeze-only", func(t *try) {
		g := t.guest(guestSpec{})
		_, shared := t.primary(g, 64, 32)
		t.fill(g)
		for range 2 {
			_, errno := g.sync(freeze)
			t.want("freeze", errno, 0)
			equal(t, "state", t.state(g), triggered|frozen)
		}
		t.want("uncommitted without a harvest", g.release(0, unpause), syscall.EINVAL)
		t.want("wrong epoch", g.release(1, out|unpause), syscall.EILSEQ)
		t.want("release", g.release(0, out|unpause), 0)
		equal(t, "state", t.state(g), 0)

		_, errno := g.sync(freeze)
		t.want("freeze", errno, 0)
		r := t.sync(g)
		equal(t, "epoch: a freeze is none", r.Epoch, 1)
		equal(t, "dirty: a freeze does not close the list", r.DirtyNr, 1)
		if trigger, _ := shared.Trigger(); trigger != kemariop.TriggerSync {
			t.fail("trigger: got %v, want %v", trigger, kemariop.TriggerSync)
		}
		a, b, c := shared.Times()
		if a == 0 || a > b || b > c {
			t.fail("times: got %d, %d, %d, want ascending ones", a, b, c)
		}
		t.resume(g, r)
	}},
	{"uncommitted-nothing-held", func(t *try) {
		g := t.guest(guestSpec{})
		_, shared := t.primary(g, 64, 32)
		t.fill(g)
		r := t.sync(g)
		list := t.dirty(shared, r)
		t.must(g.c.Release(r.Epoch, kemariop.ReleaseUnpause))
		equal(t, "state", t.state(g), harvested|uncommitted)
		for _, flags := range []uint32{freeze, harvest} {
			_, errno := g.sync(flags)
			t.want("sync", errno, syscall.EBUSY)
		}
		t.fill(g) // the closed list stays readable meanwhile
		if again := t.dirty(shared, r); len(again) != 1 || again[0] != list[0] {
			t.fail("closed list: got %x, want %x", again, list)
		}
		equal(t, "result in the buffer", shared.LastSync(), r)
		t.want("UNPAUSE again", g.release(r.Epoch, unpause), syscall.EINVAL)
		t.want("OUT and UNPAUSE", g.release(r.Epoch, out|unpause), syscall.EINVAL)
		t.want("OUT of another epoch", g.release(r.Epoch+1, out), syscall.EILSEQ)
		equal(t, "state", t.state(g), harvested|uncommitted)
		t.want("OUT", g.release(r.Epoch, out), 0)
		equal(t, "state after OUT", t.state(g), 0)
		t.want("OUT again", g.release(r.Epoch, out), syscall.EINVAL)
		r = t.sync(g)
		equal(t, "dirty since", r.DirtyNr, 1)
		equal(t, "epoch", r.Epoch, 2)
	}},
	{"disable-in-every-state", func(t *try) {
		g := t.guest(guestSpec{started: true})
		for name, bring := range map[string]func(){
			"armed":  func() {},
			"frozen": func() { g.sync(freeze) },
			"harvested": func() {
				t.sync(g)
			},
			"uncommitted": func() {
				t.must(g.c.Release(t.sync(g).Epoch, kemariop.ReleaseUnpause))
			},
		} {
			t.want("enable", g.enable(primary, 30000, 30000), 0)
			bring()
			t.want("disable when "+name, g.disable(), 0)
			equal(t, "state", t.state(g), 0)
			before := t.cpuTime(g)
			t.eventually("a running guest after disable when "+name, waitLong, func() bool { return t.cpuTime(g) > before })
		}
	}},
	{"pauses-nest", func(t *try) {
		g := t.guest(guestSpec{started: true})
		t.primary(g, 30000, 30000)
		r := t.sync(g)
		t.must(t.ctl.Pause(g.dom))
		t.must(t.ctl.Unpause(g.dom))
		before := t.cpuTime(g)
		t.pausedFor(g, "unpausing what one paused oneself", before)
		t.wantErr("one unpause more", t.ctl.Unpause(g.dom), syscall.EINVAL)
		t.pausedFor(g, "one unpause more", before)
		t.must(t.ctl.Pause(g.dom))
		t.resume(g, r)
		t.pausedFor(g, "release of a domain that xl paused", before)
		t.must(t.ctl.Unpause(g.dom))
		t.eventually("a running guest", waitLong, func() bool { return t.cpuTime(g) > before })
	}},
	{"tap-arguments", func(t *try) {
		g := t.guest(guestSpec{})
		s, _ := t.primary(g, 64, 32)
		tap := func(port, mode uint32) syscall.Errno { return g.op(opTap, 0, port, mode) }
		for _, port := range []uint32{0, uint32(s.Port) - 1, 4096, 1 << 20, ^uint32(0)} {
			t.want("bad port", tap(port, 0), syscall.EINVAL)
		}
		t.want("bad mode", tap(1, 2), syscall.EINVAL)
		t.want("PASS", tap(1, uint32(kemariop.TapPass)), 0)
		t.want("HOLD", tap(1, uint32(kemariop.TapHold)), 0)
	}},
	{"deliver-arguments", func(t *try) {
		g := t.guest(guestSpec{})
		s, _ := t.primary(g, 64, 32)
		for _, port := range []uint32{0, uint32(s.Port) - 1, uint32(s.Port), 1 << 20, ^uint32(0)} {
			t.want("bad port", g.op(opDeliver, 0, port), syscall.EINVAL)
		}
		p, err := t.ctl.AllocUnbound(g.dom, abi.Dom0)
		t.must(err)
		t.want("unbound port", g.op(opDeliver, 0, uint32(p)), 0)
		ev := t.listen()
		local, err := ev.BindInterdomain(g.dom, p)
		t.must(err)
		ev.notified(local, waitShort) // binding may make it pending
		t.must(g.c.Deliver(p))
		if !ev.notified(local, waitLong) {
			t.fail("delivered event: got none, want one")
		}
		equal(t, "state: delivering holds nothing", t.state(g), 0)
	}},
}
