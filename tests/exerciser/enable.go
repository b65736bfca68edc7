// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"syscall"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/kemariop"
)

var enableCases = []testCase{
	{"status-before-enable", func(t *try) {
		g := t.guest(guestSpec{})
		s, err := g.c.Status()
		t.must(err)
		equal(t, "status", s, kemariop.Status{Version: kemariop.InterfaceVersion})
		if n, err := t.fm.ResourceSize(g.dom, kemariop.ResourceKemari, 0); err == nil && n != 0 {
			t.fail("shared buffer: got %d frames, want none", n)
		}
		if m, err := t.fm.MapResource(g.dom, kemariop.ResourceKemari, 0, 0, 1, false); err == nil {
			m.Close()
			t.fail("mapping the shared buffer: got success, want an error")
		}
	}},
	{"not-enabled", func(t *try) {
		g := t.guest(guestSpec{})
		check := func() {
			for op := uint32(opDisable); op <= opHot; op++ {
				if op == opStatus {
					continue
				}
				if got := g.op(op, 0); got != syscall.ENODEV {
					t.fail("operation %d: got %s, want %s", op, answer(got), answer(syscall.ENODEV))
				}
			}
		}
		check()
		t.want("enable", g.enable(primary, 8, 4), 0)
		t.want("disable", g.disable(), 0)
		check() // what the first enable left must not matter
	}},
	{"no-domain", func(t *try) {
		r := t.raw(0x7fe0)
		t.want("status", r.op(opStatus, 0), syscall.ESRCH)
		t.want("enable", r.enable(primary, 8, 4), syscall.ESRCH)
	}},
	{"own-domain", func(t *try) {
		r := t.raw(abi.Dom0)
		t.want("enable", r.enable(primary, 8, 4), syscall.EINVAL)
		t.want("disable", r.disable(), syscall.EINVAL)
	}},
	{"enable-arguments", func(t *try) {
		g := t.guest(guestSpec{})
		t.want("version 0", g.op(opEnable, 0, 0, primary, 8, 4), syscall.EACCES)
		t.want("version 2", g.op(opEnable, 0, kemariop.InterfaceVersion+1, primary, 8, 4), syscall.EACCES)
		t.want("flags", g.op(opEnable, 1, kemariop.InterfaceVersion, primary, 8, 4), syscall.EINVAL)
		for _, role := range []uint32{0, 3, ^uint32(0)} {
			t.want("bad role", g.enable(role, 8, 4), syscall.EINVAL)
		}
		t.want("mark 0", g.enable(primary, 8, 0), syscall.EINVAL)
		t.want("nothing", g.enable(primary, 0, 0), syscall.EINVAL)
		t.want("mark > max", g.enable(primary, 8, 9), syscall.EINVAL)
		t.want("huge list", g.enable(primary, maxDirty+1, 4), syscall.EINVAL)
		t.want("secondary with a list", g.enable(secondary, 8, 4), syscall.EINVAL)
		t.want("mark = max", g.enable(primary, 8, 8), 0)
		t.want("disable", g.disable(), 0)
		t.want("largest list", g.enable(primary, maxDirty, maxDirty), 0)
		t.want("disable", g.disable(), 0)
		equal(t, "state", t.state(g), 0)
	}},
	{"enable-twice", func(t *try) {
		g := t.guest(guestSpec{})
		other := t.raw(g.dom)
		t.want("first", g.enable(primary, 8, 4), 0)
		t.want("second opener", other.enable(primary, 8, 4), syscall.EBUSY)
		t.want("in the other role", other.enable(secondary, 0, 0), syscall.EBUSY)
		t.want("disable by the second", other.disable(), 0)
		t.want("disable twice", g.disable(), syscall.ENODEV)
	}},
	{"enable-answers-status", func(t *try) {
		g := t.guest(guestSpec{})
		s, err := g.c.Enable(kemariop.EnableParams{Role: kemariop.RolePrimary, DirtyMax: 100, DirtyMark: 50})
		t.must(err)
		again, err := g.c.Status()
		t.must(err)
		equal(t, "status", again, s)
		equal(t, "role", s.Role, kemariop.RolePrimary)
		equal(t, "max", s.DirtyMax, 100)
		equal(t, "mark", s.DirtyMark, 50)
		equal(t, "state", s.State, 0)
		// All other ports keep the numbers which they have on a host
		// without Kemari.
		p, err := t.ctl.AllocUnbound(g.dom, abi.Dom0)
		t.must(err)
		if s.Port <= p || p != 3 {
			t.fail("ports: got notification %d and the next one %d, want 3 for that and a higher one", s.Port, p)
		}
		n, err := t.fm.ResourceSize(g.dom, kemariop.ResourceKemari, 0)
		t.must(err)
		equal(t, "frames", n, uint64(s.NrFrames))
	}},
	{"refuse-grant-v2", func(t *try) {
		g := t.guest(guestSpec{grant: 2})
		t.want("primary", g.enable(primary, 8, 4), syscall.EOPNOTSUPP)
		t.want("secondary", g.enable(secondary, 0, 0), syscall.EOPNOTSUPP)
		equal(t, "state", t.state(g), 0)
	}},
	{"refuse-pv", func(t *try) {
		g := t.guest(guestSpec{kind: "pv", debian: true})
		t.want("primary", g.enable(primary, 8, 4), syscall.EOPNOTSUPP)
		t.want("secondary", g.enable(secondary, 0, 0), syscall.EOPNOTSUPP)
	}},
	{"refuse-hvm-without-hap", func(t *try) {
		t.skip("xl makes an HVM guest only with a device model, which the lab's dom0 has not; the same check refuses PV")
	}},
	{"unknown-operation", func(t *try) {
		g := t.guest(guestSpec{})
		t.want("not enabled", g.op(99, 0), syscall.ENODEV)
		t.want("enable", g.enable(primary, 8, 4), 0)
		t.want("enabled", g.op(99, 0), syscall.EOPNOTSUPP)
		t.want("with flags", g.op(99, 1), syscall.EINVAL)
	}},
	{"buffer-outlives-disable", func(t *try) {
		g := t.guest(guestSpec{})
		_, old := t.primary(g, 64, 32)
		t.fill(g)
		r := t.sync(g)
		equal(t, "dirty", r.DirtyNr, 1)
		t.want("disable", g.disable(), 0)
		equal(t, "old buffer after disable", old.LastSync(), r)
		s, fresh := t.primary(g, 600, 600)
		r2 := t.sync(g)
		equal(t, "epoch of a new protection", r2.Epoch, 1)
		equal(t, "dirty of a new protection", r2.DirtyNr, 0)
		equal(t, "old buffer after enable", old.LastSync(), r)
		equal(t, "new buffer", fresh.LastSync(), r2)
		for _, n := range []uint64{uint64(s.NrFrames) + 1, 1 << 19} {
			if m, err := t.fm.MapResource(g.dom, kemariop.ResourceKemari, 0, 0, n, false); err == nil {
				m.Close()
				t.fail("mapping %d frames of %d: got success, want an error", n, s.NrFrames)
			}
		}
		for _, frame := range []uint64{uint64(s.NrFrames), 1<<32 - 1} {
			if m, err := t.fm.MapResource(g.dom, kemariop.ResourceKemari, 0, frame, 1, false); err == nil {
				m.Close()
				t.fail("mapping frame %d of %d: got success, want an error", frame, s.NrFrames)
			}
		}
		if m, err := t.fm.MapResource(g.dom, kemariop.ResourceKemari, 1, 0, 1, false); err == nil {
			m.Close()
			t.fail("mapping id 1: got success, want an error")
		}
	}},
	{"xen-never-reads-the-buffer", func(t *try) {
		// Whoever maps the buffer may write to it, by mistake: nothing that
		// stands there may confuse Xen.
		g := t.guest(guestSpec{})
		s, _ := t.primary(g, 64, 64)
		m, err := t.fm.MapResource(g.dom, kemariop.ResourceKemari, 0, 0, uint64(s.NrFrames), true)
		t.must(err)
		t.later(func() { m.Close() })
		t.fill(g)
		b := m.Bytes()
		for i := 0; i < len(b); i += 8 {
			binary.LittleEndian.PutUint64(b[i:], 0xfffffffffffffff0+uint64(i&15))
		}
		r := t.sync(g)
		equal(t, "dirty", r.DirtyNr, 1)
		t.resume(g, r)
		t.fill(g)
		t.resume(g, t.sync(g))
		t.want("disable", g.disable(), 0)
	}},
}
