// SPDX-License-Identifier: Apache-2.0

package main

import (
	"syscall"
	"time"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/kemariop"
)

// settle waits until Xen's free memory has stopped to change, and returns it.
func (t *try) settle() uint64 {
	var last uint64
	for range 100 {
		now, scrubbed := t.free()
		if now == last && scrubbed {
			return now
		}
		last = now
		time.Sleep(100 * time.Millisecond)
	}
	return last
}

func (t *try) free() (pages uint64, scrubbed bool) {
	p, err := t.ctl.Physinfo()
	t.must(err)
	return p.FreePages, p.ScrubPages == 0
}

// slack is how many pages Xen's heap may keep for its own later use.
const slack = 8

// destroyed makes a guest, brings it into a state, and destroys it while dom0
// has pages of it mapped. It must vanish when they no longer are.
func destroyed(bring func(t *try, g *guest)) func(t *try) {
	return func(t *try) {
		before := t.settle()
		t.destroy(bring)
		// What is left of a domain that has vanished is freed by RCU:
		// complete_domain_destroy(), common/domain.c.
		var after uint64
		for end := time.Now().Add(waitLong); ; time.Sleep(10 * time.Millisecond) {
			if after, _ = t.free(); after+slack >= before {
				return
			}
			if time.Now().After(end) {
				t.fail("free memory: got %d pages after %v, want %d as before", after, waitLong, before)
				return
			}
		}
	}
}

func (t *try) destroy(bring func(t *try, g *guest)) {
	g := t.guest(guestSpec{})
	bring(t, g)
	var mapped []interface{ Close() error }
	m, err := t.fm.Map(g.dom, []abi.GFN{someGFN}, true)
	t.must(err)
	mapped = append(mapped, m)
	s, err := g.c.Status()
	t.must(err)
	if s.NrFrames > 0 {
		b, err := t.fm.MapResource(g.dom, kemariop.ResourceKemari, 0, 0, uint64(s.NrFrames), false)
		t.must(err)
		mapped = append(mapped, b)
	}
	if _, err := xl("destroy", g.name); err != nil {
		t.fail("got %v, want success", err)
	}
	for _, m := range mapped {
		info, err := t.ctl.DomainInfo(g.dom)
		if err != nil || !info.Is(abi.DomInfDying) {
			t.fail("a destroyed domain with pages mapped: got %+v, %v, want a dying one", info, err)
		}
		t.want("enable of a dying domain", g.enable(primary, 8, 4), syscall.EINVAL)
		t.must(m.Close())
	}
	t.eventually("a domain that has vanished", waitLong, func() bool {
		_, err := t.ctl.DomainInfo(g.dom)
		return isErrno(err, syscall.ESRCH)
	})
}

var destroyCases = []testCase{
	// The first finds out nothing new, but makes xl, xenstored and Xen take
	// the memory that they keep.
	{"destroy-never-enabled", func(t *try) { t.destroy(func(*try, *guest) {}) }},
	{"destroy-armed", destroyed(func(t *try, g *guest) {
		t.want("enable", g.enable(primary, 600, 600), 0)
		t.fill(g)
	})},
	{"destroy-triggered", destroyed(func(t *try, g *guest) {
		t.want("enable", g.enable(primary, 8, 1), 0)
		t.fill(g)
		equal(t, "state", t.state(g), triggered)
	})},
	{"destroy-frozen", destroyed(func(t *try, g *guest) {
		t.want("enable", g.enable(primary, 600, 600), 0)
		_, errno := g.sync(freeze)
		t.want("freeze", errno, 0)
	})},
	{"destroy-harvested", destroyed(func(t *try, g *guest) {
		t.want("enable", g.enable(primary, 600, 600), 0)
		t.fill(g)
		t.sync(g)
	})},
	{"destroy-uncommitted", destroyed(func(t *try, g *guest) {
		t.want("enable", g.enable(primary, 600, 600), 0)
		t.must(t.ctl.Unpause(g.dom))
		t.must(g.c.Release(t.sync(g).Epoch, kemariop.ReleaseUnpause))
		time.Sleep(waitShort) // it boots
	})},
	{"destroy-running", destroyed(func(t *try, g *guest) {
		t.want("enable", g.enable(primary, 30000, 30000), 0)
		t.must(t.ctl.Unpause(g.dom))
		time.Sleep(time.Second)
	})},
	{"destroy-parked-event", destroyed(func(t *try, g *guest) {
		p, err := t.ctl.AllocUnbound(g.dom, abi.Dom0)
		t.must(err)
		ev := t.listen()
		local, err := ev.BindInterdomain(g.dom, p)
		t.must(err)
		t.want("enable", g.enable(primary, 8, 4), 0)
		t.sync(g)
		t.must(ev.Notify(local))
	})},
	{"destroy-secondary", destroyed(func(t *try, g *guest) {
		t.want("enable", g.enable(secondary, 0, 0), 0)
	})},
	{"destroy-secondary-with-state", destroyed(func(t *try, g *guest) {
		b := t.stateOf(g).Encode()
		t.want("enable", g.enable(secondary, 0, 0), 0)
		t.want("set_state", t.records(g, b), 0)
	})},
	{"destroy-secondary-that-failed", destroyed(func(t *try, g *guest) {
		st := t.stateOf(g)
		fifoState(st)
		st.Evtchns[len(st.Evtchns)-1].Port = 2000 // refused when much is done
		t.want("enable", g.enable(secondary, 0, 0), 0)
		t.want("set_state", t.records(g, st.Encode()), syscall.ENOSPC)
	})},
	{"destroy-disabled", destroyed(func(t *try, g *guest) {
		t.want("enable", g.enable(primary, 600, 600), 0)
		t.fill(g)
		t.sync(g)
		t.want("disable", g.disable(), 0)
	})},
	{"destroy-log-dirty-left", destroyed(func(t *try, g *guest) {
		t.want("enable", g.enable(primary, 600, 600), 0)
		t.want("disable", g.disable(), 0)
		t.must(t.ctl.EnableLogDirty(g.dom))
	})},
}
