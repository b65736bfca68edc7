// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"syscall"
	"time"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/kemariop"
	"github.com/kemari-ft/kemari/xen/privcmd"
)

// someGFN is RAM of a guest with the small kernel, behind what it is loaded with, and
// ramGFNs what it has.
const someGFN, ramGFNs abi.GFN = 0x2800, smallMiB << 8

// wantDirty compares a dirty list, in any order.
func (t *try) wantDirty(what string, got []uint64, want ...uint64) {
	got = slices.Clone(got)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.fail("%s: got %#x, want %#x", what, got, want)
	}
}

// writer is a running guest that writes to pages.
type writer struct {
	t      *try
	g      *guest
	shared *kemariop.Shared
}

func (t *try) writer() writer {
	g := t.guest(guestSpec{running: true, vcpus: 2})
	_, shared := t.primary(g, 4096, 3000)
	t.must(g.c.Tap(t.consolePort(g), kemariop.TapPass))
	return writer{t, g, shared}
}

// runs is for how long a guest runs between two syncs: its timer ticks several times.
const runs = 10 * time.Millisecond

// sync returns what the guest has written while it ran a little, in ascending order.
// For how long it has to be waited for that depends on who else wants the processors.
func (w writer) sync() []abi.GFN {
	before := w.t.cpuTime(w.g)
	w.t.eventually("a running guest", waitLong, func() bool { return w.t.cpuTime(w.g) >= before+runs })
	r := w.t.sync(w.g)
	equal(w.t, "flags", r.Flags, 0)
	var gfns []abi.GFN
	for _, entry := range w.t.dirty(w.shared, r) {
		gfn, _ := kemariop.DirtyGFN(entry)
		gfns = append(gfns, gfn)
	}
	w.t.resume(w.g, r)
	slices.Sort(gfns)
	return slices.Compact(gfns)
}

// often is what it writes between two syncs each time.
func (w writer) often() []abi.GFN {
	gfns := w.sync()
	for range 5 {
		more := w.sync()
		gfns = slices.DeleteFunc(gfns, func(gfn abi.GFN) bool { return !slices.Contains(more, gfn) })
	}
	if len(gfns) == 0 {
		w.t.fail("pages that a running guest writes always: got none, want some")
	}
	return gfns
}

var dirtyCases = []testCase{
	{"grant-copy-is-logged", func(t *try) {
		g := t.guest(guestSpec{})
		_, shared := t.primary(g, 64, 32)
		store := uint64(t.storeGFN(g))
		for range 3 {
			t.fill(g)
			t.fill(g) // a page is listed once
			r := t.sync(g)
			t.wantDirty("dirty", t.dirty(shared, r), store)
			equal(t, "flags", r.Flags, 0)
			t.resume(g, r)
		}
		r := t.sync(g)
		t.wantDirty("dirty when nothing happened", t.dirty(shared, r))
	}},
	{"halves-alternate", func(t *try) {
		g := t.guest(guestSpec{})
		_, shared := t.primary(g, 64, 32)
		half := t.sync(g).DirtyHalf
		t.must(g.c.Release(1, kemariop.ReleaseOut|kemariop.ReleaseUnpause))
		for range 4 {
			t.fill(g)
			r := t.sync(g)
			equal(t, "half", r.DirtyHalf, half^1)
			half = r.DirtyHalf
			equal(t, "dirty", len(t.dirty(shared, r)), 1)
			t.resume(g, r)
		}
	}},
	{"foreign-write-is-not-logged", func(t *try) {
		// Xen cannot know: dom0 has to write by grant copy, or into pages
		// that are sent at each sync.
		g := t.guest(guestSpec{})
		_, shared := t.primary(g, 64, 32)
		m, err := t.fm.Map(g.dom, []abi.GFN{someGFN}, true)
		t.must(err)
		t.later(func() { m.Close() })
		t.must(m.Err(0))
		m.Bytes()[0]++
		r := t.sync(g)
		t.wantDirty("dirty", t.dirty(shared, r))
	}},
	{"balloon", func(t *try) {
		g := t.guest(guestSpec{})
		_, shared := t.primary(g, 64, 32)
		entry := uint64(someGFN) | 1<<63
		t.must(t.ctl.DecreaseReservation(g.dom, []abi.GFN{someGFN}))
		r := t.sync(g)
		t.wantDirty("after decrease_reservation", t.dirty(shared, r), entry)
		m, err := t.fm.Map(g.dom, []abi.GFN{someGFN}, false)
		t.must(err)
		equal(t, "page there", m.Present(0), false)
		t.must(m.Close())
		t.resume(g, r)
		t.must(t.ctl.PopulatePhysmap(g.dom, []abi.GFN{someGFN}))
		r = t.sync(g)
		if list := t.dirty(shared, r); !slices.Contains(list, entry) {
			t.fail("after populate_physmap: got %#x, want %#x among them", list, entry)
		}
		t.resume(g, r)
		r = t.sync(g)
		t.wantDirty("later", t.dirty(shared, r))
		t.resume(g, r)
		t.must(t.ctl.AddToPhysmap(g.dom, abi.MapSpaceSharedInfo, 0, someGFN))
		r = t.sync(g)
		if list := t.dirty(shared, r); !slices.Contains(list, entry) {
			t.fail("after add_to_physmap: got %#x, want %#x among them", list, entry)
		}
		always, err := shared.Always(r.AlwaysNr)
		t.must(err)
		if !slices.ContainsFunc(always, func(e uint64) bool {
			kind, _, gfn := kemariop.AlwaysEntry(e)
			return kind == kemariop.AlwaysSharedInfo && gfn == someGFN
		}) {
			t.fail("always-sent pages: got %#x, want shared_info at %#x among them", always, uint64(someGFN))
		}
	}},
	{"mark-triggers", func(t *try) {
		g := t.guest(guestSpec{})
		s, shared := t.primary(g, 64, 4)
		ev, local := t.notification(g, s)
		for i := range abi.GFN(3) {
			t.must(t.ctl.DecreaseReservation(g.dom, []abi.GFN{someGFN + i}))
		}
		equal(t, "state below the mark", t.state(g), 0)
		t.fill(g)
		equal(t, "state at the mark", t.state(g), triggered)
		trigger, _ := shared.Trigger()
		equal(t, "trigger", trigger, kemariop.TriggerMark)
		if !ev.notified(local, waitLong) {
			t.fail("notification: got none, want one")
		}
		r := t.sync(g)
		equal(t, "dirty", r.DirtyNr, 4)
		equal(t, "flags", r.Flags, 0)
		for i := range abi.GFN(4) { // others fill the list of a frozen domain
			t.must(t.ctl.PopulatePhysmap(g.dom, []abi.GFN{someGFN + i%3}))
			t.must(t.ctl.DecreaseReservation(g.dom, []abi.GFN{someGFN + i%3}))
		}
		t.resume(g, r)
		equal(t, "state after a release with a full list", t.state(g), triggered)
		if !ev.notified(local, waitLong) {
			t.fail("notification after the release: got none, want one")
		}
	}},
	{"mark-triggers-running-guest", func(t *try) {
		g := t.guest(guestSpec{running: true, vcpus: 2})
		s, shared := t.primary(g, 4096, 32)
		t.must(g.c.Tap(t.consolePort(g), kemariop.TapPass))
		ev, local := t.notification(g, s)
		for range 10 {
			// The first trigger may be older than the binding, and its event
			// may have been taken for that of the binding.
			for t.state(g)&triggered == 0 {
				if !ev.notified(local, waitLong) {
					t.fail("notification: got none, want one: the guest writes 128 KiB and more")
					return
				}
			}
			trigger, _ := shared.Trigger()
			r := t.sync(g)
			equal(t, "flags", r.Flags, 0)
			if trigger == kemariop.TriggerMark && (r.DirtyNr < 32 || r.DirtyNr > 1024) {
				t.fail("dirty: got %d, want the mark, 32, and little more", r.DirtyNr)
			}
			t.resume(g, r)
		}
	}},
	{"full-list-is-lost", func(t *try) {
		g := t.guest(guestSpec{})
		t.primary(g, 4, 4)
		for i := range abi.GFN(5) {
			t.must(t.ctl.DecreaseReservation(g.dom, []abi.GFN{someGFN + i}))
		}
		for range 2 { // it stays so
			equal(t, "state", t.state(g), triggered)
			r := t.sync(g)
			equal(t, "flags", r.Flags, kemariop.SyncLost)
			if r.DirtyNr > 4 {
				t.fail("dirty: got %d, want 4 at most", r.DirtyNr)
			}
			t.resume(g, r)
		}
		t.want("disable", g.disable(), 0)
		t.primary(g, 4, 4)
		equal(t, "flags of a new protection", t.sync(g).Flags, 0)
	}},
	{"hot-pages", func(t *try) {
		g := t.guest(guestSpec{})
		_, shared := t.primary(g, 64, 32)
		store := t.storeGFN(g)
		listed := func(what string, want ...abi.GFN) {
			var entries []uint64
			for _, gfn := range want {
				entries = append(entries, uint64(gfn))
			}
			r := t.sync(g)
			equal(t, "flags", r.Flags, 0)
			t.wantDirty(what, t.dirty(shared, r), entries...)
			t.resume(g, r)
		}
		t.fill(g)
		t.must(g.c.Hot([]abi.GFN{someGFN, store}))
		listed("what was dirtied before", store)
		listed("hot, and not dirtied", someGFN, store)
		t.fill(g)
		listed("hot, and dirtied", someGFN, store)
		t.must(g.c.Hot([]abi.GFN{someGFN}))
		listed("when one is not hot any more", someGFN, store)
		listed("after that", someGFN)
		t.fill(g)
		listed("and dirtied again", someGFN, store)
		t.must(t.ctl.DecreaseReservation(g.dom, []abi.GFN{someGFN}))
		r := t.sync(g)
		t.wantDirty("when there is no such page any more", t.dirty(shared, r), uint64(someGFN), uint64(someGFN)|1<<63)
		t.resume(g, r)
		listed("after that", someGFN)
		t.must(g.c.Hot(nil))
		listed("without any", someGFN)
		listed("after that")
	}},
	{"hot-pages-of-running-guest", func(t *try) {
		// What the guest writes always is found by looking, and named. It stays on
		// each list, and what it writes beside it is listed, too.
		w := t.writer()
		hot := w.often()
		hot = hot[:min(len(hot), kemariop.HotMax)]
		for i := range 10 {
			named := hot
			if i%2 == 1 {
				named = hot[len(hot)/2:]
			}
			t.must(w.g.c.Hot(named))
			w.sync()
			list := w.sync()
			for _, gfn := range named {
				if !slices.Contains(list, gfn) {
					t.fail("hot page %#x: got it not on the list, want it on each", uint64(gfn))
				}
			}
		}
	}},
	{"warm-pages-of-running-guest", func(t *try) {
		// Beside what the guest writes always is something that it does not write.
		// When that is warm it is listed, too.
		w := t.writer()
		often := w.often()
		seen := map[abi.GFN]bool{}
		for range 10 {
			for _, gfn := range w.sync() {
				seen[gfn] = true
			}
		}
		var beside []abi.GFN
		for _, gfn := range often {
			first := gfn &^ (kemariop.Near - 1)
			for near := first; near < first+kemariop.Near; near++ {
				if near < ramGFNs && !seen[near] {
					beside = append(beside, near)
				}
			}
		}
		slices.Sort(beside)
		beside = slices.Compact(beside)
		if len(beside) == 0 {
			t.fail("pages beside those that a running guest writes always: got none that it does not write, want some")
		}
		const lists = 8
		listed := func() (n int) {
			w.sync() // of before they were named
			for range lists {
				list := w.sync()
				for _, gfn := range beside {
					if slices.Contains(list, gfn) {
						n++
					}
				}
			}
			return n
		}
		before := listed()
		t.must(w.g.c.Warm(beside))
		warm := listed()
		t.must(w.g.c.Warm(nil))
		after := listed()
		// Some lie beside what only Xen writes, which does not fault. Some are written now
		// and then, and were not when it was seen what is.
		if warm < len(beside)*lists*3/4 || before > warm/4 || after > warm/4 {
			t.fail("of %d pages beside those that are written, on %d lists each: got %d before they were warm, %d when they were, and %d afterwards; want most of them when they are, few otherwise", len(beside), lists, before, warm, after)
		}
	}},
	{"grant-copy-dirties-no-warm-page", func(t *try) {
		g := t.guest(guestSpec{})
		_, shared := t.primary(g, 64, 32)
		store := t.storeGFN(g)
		t.must(g.c.Warm([]abi.GFN{store ^ 1, store ^ 2}))
		t.fill(g)
		r := t.sync(g)
		t.wantDirty("dirty", t.dirty(shared, r), uint64(store))
	}},
	{"hot-and-warm-pages-refused", func(t *try) {
		g := t.guest(guestSpec{})
		t.primary(g, 64, 32)
		buf, err := t.hc.Alloc(9 * abi.PageSize)
		t.must(err)
		defer buf.Free()
		gfns := privcmd.Slice[uint64](buf.Bytes(), 9*512)
		r := t.raw(g.dom)
		for i := range gfns {
			gfns[i] = uint64(i)
		}
		t.want("as many hot as trigger", r.name(opHot, buf.Addr(), 32, 0), syscall.E2BIG)
		t.want("fewer", r.name(opHot, buf.Addr(), 31, 0), 0)
		t.want("disable", r.disable(), 0)
		t.want("enable with a higher mark", r.enable(primary, 4096, 2000), 0)
		for op, most := range map[uint32]uint32{opHot: kemariop.HotMax, opWarm: kemariop.WarmMax} {
			for i := range gfns {
				gfns[i] = uint64(i)
			}
			t.want("too many", r.name(op, buf.Addr(), most+1, 0), syscall.E2BIG)
			t.want("pad", r.name(op, buf.Addr(), 4, 1), syscall.EINVAL)
			t.want("flags", r.op(op, 1), syscall.EINVAL)
			t.want("no memory there", r.name(op, 8, 4, 0), syscall.EFAULT)
			t.want("Xen's memory", r.name(op, 0xffff82d040200000, 4, 0), syscall.EFAULT)
			gfns[3] = 2
			t.want("one twice", r.name(op, buf.Addr(), 4, 0), syscall.EINVAL)
			gfns[3] = 1 << 52
			t.want("no gfn", r.name(op, buf.Addr(), 4, 0), syscall.EINVAL)
			gfns[3] = 1<<52 - 1
			t.want("no page there", r.name(op, buf.Addr(), 4, 0), 0)
			epoch, errno := r.sync(harvest)
			t.want("sync with it", errno, 0)
			t.want("in a frozen domain", r.name(op, buf.Addr(), 4, 0), 0)
			t.want("release", r.release(epoch, uint32(kemariop.ReleaseOut|kemariop.ReleaseUnpause)), 0)
		}
		for i := range gfns {
			gfns[i] = uint64(i)
		}
		t.want("as many as may be warm", r.name(opWarm, buf.Addr(), kemariop.WarmMax, 0), 0)
		t.want("disable", r.disable(), 0)
		t.want("not enabled", r.name(opHot, buf.Addr(), 4, 0), syscall.ENODEV)
		t.want("not enabled", r.name(opWarm, buf.Addr(), 4, 0), syscall.ENODEV)
	}},
	{"log-dirty-is-ours", func(t *try) {
		g := t.guest(guestSpec{})
		_, shared := t.primary(g, 64, 32)
		foreign := func(want syscall.Errno) {
			t.wantErr("ENABLE_LOGDIRTY", t.ctl.EnableLogDirty(g.dom), want)
			_, _, err := t.ctl.DirtyBitmap(g.dom, 64, false)
			t.wantErr("PEEK", err, want)
			_, _, err = t.ctl.DirtyBitmap(g.dom, 64, true)
			t.wantErr("CLEAN", err, want)
			t.wantErr("OFF", t.ctl.DisableLogDirty(g.dom), want)
		}
		foreign(syscall.EBUSY)
		t.fill(g)
		r := t.sync(g)
		foreign(syscall.EBUSY)
		t.wantDirty("dirty", t.dirty(shared, r), uint64(t.storeGFN(g)))
		t.want("disable", g.disable(), 0)
		foreign(0)
		t.want("enable afterwards", g.enable(primary, 64, 32), 0)
	}},
	{"log-dirty-of-others", func(t *try) {
		g := t.guest(guestSpec{})
		t.must(t.ctl.EnableLogDirty(g.dom))
		t.want("enable", g.enable(primary, 64, 32), syscall.EBUSY)
		s, err := g.c.Status()
		t.must(err)
		equal(t, "status", s, kemariop.Status{Version: kemariop.InterfaceVersion})
		t.fill(g)
		store := uint64(t.storeGFN(g))
		bits, _, err := t.ctl.DirtyBitmap(g.dom, store+1, false)
		t.must(err)
		if bits[store/8]>>(store%8)&1 == 0 {
			t.fail("the others' bitmap: got no bit for %#x, want one", store)
		}
		t.must(t.ctl.DisableLogDirty(g.dom))
		t.want("enable afterwards", g.enable(primary, 64, 32), 0)
	}},
}
