// SPDX-License-Identifier: Apache-2.0

package main

import (
	"syscall"

	"github.com/kemari-ft/kemari/xen/kemariop"
)

var secondaryCases = []testCase{
	{"secondary-must-be-paused", func(t *try) {
		g := t.guest(guestSpec{started: true})
		t.want("running", g.enable(secondary, 0, 0), syscall.EINVAL)
		equal(t, "state", t.state(g), 0)
		t.must(t.ctl.Pause(g.dom))
		t.want("paused", g.enable(secondary, 0, 0), 0)
		before := t.cpuTime(g)
		t.must(t.ctl.Unpause(g.dom))
		t.pausedFor(g, "xl unpause of a secondary", before)
		t.want("disable", g.disable(), 0)
		t.eventually("a running guest", waitLong, func() bool { return t.cpuTime(g) > before })
	}},
	{"secondary-operations", func(t *try) {
		g := t.guest(guestSpec{})
		t.want("enable", g.enable(secondary, 0, 0), 0)
		s, err := g.c.Status()
		t.must(err)
		equal(t, "status", s, kemariop.Status{Version: kemariop.InterfaceVersion,
			Role: kemariop.RoleSecondary, State: frozen})
		t.want("enable again", g.enable(secondary, 0, 0), syscall.EBUSY)
		t.want("enable in the other role", g.enable(primary, 8, 4), syscall.EBUSY)
		for _, flags := range []uint32{freeze, harvest} {
			_, errno := g.sync(flags)
			t.want("sync", errno, syscall.EINVAL)
		}
		t.want("release", g.release(0, out|unpause), syscall.EINVAL)
		t.want("tap", g.op(opTap, 0, 1, 0), syscall.EINVAL)
		t.want("resume before set_state", g.op(opResume, 0), syscall.EINVAL)
		if m, err := t.fm.MapResource(g.dom, kemariop.ResourceKemari, 0, 0, 1, false); err == nil {
			m.Close()
			t.fail("mapping the shared buffer: got success, want an error")
		}
		t.want("disable", g.disable(), 0)
		equal(t, "state", t.state(g), 0)
	}},
	{"primary-operations", func(t *try) {
		g := t.guest(guestSpec{})
		t.primary(g, 64, 32)
		st := t.snapshot(g)
		t.want("resume", g.op(opResume, 0), syscall.EINVAL)
		t.want("set_state", t.records(g, st.Encode()), syscall.EINVAL)
	}},
	{"set-state-once", func(t *try) {
		g := t.guest(guestSpec{})
		b := t.stateOf(g).Encode()
		t.want("enable", g.enable(secondary, 0, 0), 0)
		t.want("set_state", t.records(g, b), 0)
		equal(t, "state", t.state(g), frozen|kemariop.StateSet)
		t.want("set_state again", t.records(g, b), syscall.EBUSY)
		t.want("resume", g.op(opResume, 0), 0)
		s, err := g.c.Status()
		t.must(err)
		equal(t, "status", s, kemariop.Status{Version: kemariop.InterfaceVersion})
		t.want("resume again", g.op(opResume, 0), syscall.ENODEV)
	}},
	{"set-state-once-also-if-it-failed", func(t *try) {
		g := t.guest(guestSpec{})
		b := t.stateOf(g).Encode()
		t.want("enable", g.enable(secondary, 0, 0), 0)
		t.want("set_state", t.records(g, b[:len(b)-1]), syscall.EINVAL)
		t.want("set_state again", t.records(g, b), syscall.EBUSY)
		t.want("resume", g.op(opResume, 0), syscall.EINVAL)
		t.want("disable", g.disable(), 0)
	}},
	{"set-state-arguments", func(t *try) {
		g := t.guest(guestSpec{})
		b := t.stateOf(g).Encode()
		t.want("enable", g.enable(secondary, 0, 0), 0)
		buf, err := t.hc.Alloc(len(b))
		t.must(err)
		defer buf.Free()
		copy(buf.Bytes(), b)
		t.want("size 0", g.setState(buf.Addr(), 0, 0), syscall.EINVAL)
		t.want("too large", g.setState(buf.Addr(), kemariop.StateMax+1, 0), syscall.EINVAL)
		t.want("pad", g.setState(buf.Addr(), uint32(len(b)), 1), syscall.EINVAL)
		t.want("no memory there", g.setState(8, uint32(len(b)), 0), syscall.EFAULT)
		t.want("Xen's memory", g.setState(0xffff82d040200000, uint32(len(b)), 0), syscall.EFAULT)
		t.want("after bad arguments", g.setState(buf.Addr(), uint32(len(b)), 0), 0)
	}},
	{"protected-again-after-resume", func(t *try) {
		// What resume leaves must be an ordinary domain, fit for either role.
		g := t.guest(guestSpec{})
		b := t.stateOf(g).Encode()
		t.want("enable", g.enable(secondary, 0, 0), 0)
		t.want("set_state", t.records(g, b), 0)
		t.want("resume", g.op(opResume, 0), 0)
		_, shared := t.primary(g, 64, 32)
		t.fill(g)
		r := t.sync(g)
		t.wantDirty("dirty", t.dirty(shared, r), uint64(t.storeGFN(g)))
		t.resume(g, r)
		t.want("disable", g.disable(), 0)
		t.must(t.ctl.Unpause(g.dom))
		before := t.cpuTime(g)
		t.eventually("a running guest", waitLong, func() bool { return t.cpuTime(g) > before })
	}},
}

// snapshot is the state of a primary, fit for set_state.
func (t *try) snapshot(g *guest) *kemariop.State {
	s, err := g.c.Status()
	t.must(err)
	shared, err := g.c.MapShared(t.fm, s.NrFrames)
	t.must(err)
	defer shared.Close()
	r := t.sync(g)
	b, err := shared.StateCopy(r.StateLen)
	t.must(err)
	t.resume(g, r)
	st, err := kemariop.DecodeState(b)
	t.must(err)
	if len(st.HVM) == 0 {
		t.fail("state: got no HVM context, want one")
	}
	st.HVM = nil
	return st
}

// stateOf is the state of a guest that is not enabled.
func (t *try) stateOf(g *guest) *kemariop.State {
	t.want("enable", g.enable(primary, 64, 32), 0)
	st := t.snapshot(g)
	t.want("disable", g.disable(), 0)
	return st
}
