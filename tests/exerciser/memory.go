// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/foreignmem"
	"github.com/kemari-ft/kemari/xen/kemariop"
)

// view is the memory of a guest.
type view struct {
	dom   abi.DomID
	fm    *foreignmem.Handle
	parts []part
}

// part is a mapping of a range of gfns, with a hash of each page: 0 for a hole.
type part struct {
	first abi.GFN
	m     *foreignmem.Mapping
	hash  []uint64
}

// view maps what a PVH guest of libxl has: RAM from 0 on, and special pages
// below 4 GiB. What lies elsewhere is mapped when it appears on a dirty list.
func (t *try) view(g *guest) *view {
	v := &view{dom: g.dom, fm: t.fm}
	info, err := t.ctl.DomainInfo(g.dom)
	t.must(err)
	t.later(func() {
		for _, p := range v.parts {
			p.m.Close()
		}
	})
	t.must(v.add(0, abi.GFN(info.MaxPages)))
	t.must(v.add(0xfc000, 0x100000))
	return v
}

func (v *view) add(first, end abi.GFN) error {
	var gfns []abi.GFN
	for gfn := first; gfn < end; gfn++ {
		gfns = append(gfns, gfn)
	}
	m, err := v.fm.Map(v.dom, gfns, false)
	if err == nil {
		v.parts = append(v.parts, part{first, m, make([]uint64, len(gfns))})
	}
	return err
}

// changed maps gfns, in ascending order, again or for the first time.
func (v *view) changed(gfns []abi.GFN) error {
	for _, p := range v.parts {
		var again []int
		gfns = slices.DeleteFunc(gfns, func(gfn abi.GFN) bool {
			here := gfn >= p.first && gfn < p.first+abi.GFN(p.m.Len())
			if here {
				again = append(again, int(gfn-p.first))
			}
			return here
		})
		if err := p.m.Refresh(again...); err != nil {
			return err
		}
	}
	for _, gfn := range gfns {
		if err := v.add(gfn, gfn+1); err != nil {
			return err
		}
	}
	return nil
}

// differences returns the pages that are not what they were at the last call.
func (v *view) differences() []abi.GFN {
	var diff []abi.GFN
	for _, p := range v.parts {
		for i := range p.m.Len() {
			var h uint64
			if p.m.Present(i) {
				h = hash(p.m.Page(i))
			}
			if h != p.hash[i] {
				p.hash[i] = h
				diff = append(diff, p.first+abi.GFN(i))
			}
		}
	}
	return diff
}

// hash is never 0. It is a bijection of each single word, and quick where
// processors are emulated.
func hash(page []byte) uint64 {
	h := uint64(len(page))
	for ; len(page) >= 32; page = page[32:] {
		four := page[:32:32]
		h ^= binary.LittleEndian.Uint64(four) * 0x9e3779b97f4a7c15
		h += binary.LittleEndian.Uint64(four[8:]) * 0xbf58476d1ce4e5b9
		h ^= binary.LittleEndian.Uint64(four[16:]) * 0x94d049bb133111eb
		h += binary.LittleEndian.Uint64(four[24:]) * 0xd6e8feb86659fd93
		h = h<<29 | h>>35
	}
	return max(h, 1)
}

// soak compares the memory of a guest at each of its syncs.
type soak struct {
	t      *try
	g      *guest
	shared *kemariop.Shared
	v      *view
	always map[abi.GFN]bool // of the last sync and this
	fixed  map[abi.GFN]bool // pages that dom0 writes, sent at each sync

	rounds, pages, listed int
}

func (t *try) soak(g *guest) *soak {
	_, shared := t.primary(g, 30000, 30000)
	s := &soak{t: t, g: g, shared: shared, v: t.view(g), fixed: map[abi.GFN]bool{t.storeGFN(g): true}}
	console, err := t.ctl.GetHVMParam(g.dom, abi.HVMParamConsolePFN)
	t.must(err)
	s.fixed[abi.GFN(console)] = true
	s.round(true)
	return s
}

// round syncs once and returns the pages that changed without being on the
// dirty list or among the pages sent always.
func (s *soak) round(first bool) (unseen []abi.GFN) {
	t := s.t
	r := t.sync(s.g)
	equal(t, "flags", r.Flags, 0)
	listed := map[abi.GFN]bool{}
	var remap []abi.GFN
	for _, e := range t.dirty(s.shared, r) {
		gfn, p2m := kemariop.DirtyGFN(e)
		listed[gfn] = true
		if p2m {
			remap = append(remap, gfn)
		}
	}
	slices.Sort(remap)
	t.must(s.v.changed(slices.Compact(remap)))
	always := map[abi.GFN]bool{}
	entries, err := s.shared.Always(r.AlwaysNr)
	t.must(err)
	for _, e := range entries {
		_, _, gfn := kemariop.AlwaysEntry(e)
		always[gfn] = true
	}
	diff := s.v.differences()
	if !first {
		s.rounds++
		s.pages += len(diff)
		s.listed += len(listed)
		for _, gfn := range diff {
			if !listed[gfn] && !always[gfn] && !s.always[gfn] && !s.fixed[gfn] {
				unseen = append(unseen, gfn)
			}
		}
	}
	s.always = always
	// Hot and warm pages come and go, in the frozen guest and in the running one.
	frozen := s.rounds%2 == 0
	if frozen {
		s.namePages(listed)
	}
	t.resume(s.g, r)
	if !frozen {
		s.namePages(listed)
	}
	return unseen
}

// namePages makes a third of the pages that were listed hot, and about another one
// warm.
func (s *soak) namePages(listed map[abi.GFN]bool) {
	var hot, warm []abi.GFN
	for gfn := range listed {
		switch rand.IntN(3) {
		case 0:
			hot = append(hot, gfn)
		case 1:
			warm = append(warm, gfn)
		}
	}
	hot, warm = hot[:min(len(hot), kemariop.HotMax)], warm[:min(len(warm), kemariop.WarmMax)]
	slices.Sort(hot)
	slices.Sort(warm)
	s.t.must(s.g.c.Hot(hot))
	s.t.must(s.g.c.Warm(warm))
}

// run syncs for a while: when an event is held, and at the latest after an
// interval.
func (s *soak) run(d, interval time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		next := time.Now().Add(interval)
		for time.Now().Before(next) && s.t.state(s.g)&triggered == 0 {
			time.Sleep(5 * time.Millisecond)
		}
		if unseen := s.round(false); len(unseen) > 0 {
			s.t.fail("sync %d: pages %#x changed, got them on no list, want them on one", s.rounds, unseen)
			panic(stop{})
		}
	}
}

func (s *soak) report(what string) {
	fmt.Printf("  %s: %d syncs, %d pages changed, %d listed\n", what, s.rounds, s.pages, s.listed)
	if s.rounds == 0 || s.pages == 0 {
		s.t.fail("%s: got %d syncs and %d changed pages, want some", what, s.rounds, s.pages)
	}
	s.rounds, s.pages, s.listed = 0, 0, 0
}

// noUnseenWrite is the promise that all else rests upon: no page of the guest
// changes without being on the dirty list or among the pages sent always.
func noUnseenWrite(vcpus int) func(t *try) {
	return func(t *try) {
		g := t.guest(guestSpec{vcpus: vcpus, running: true})
		s := t.soak(g)
		s.run(4*time.Second, 100*time.Millisecond)
		s.report("idle")
		t.say(g, "load mem=8,8")
		s.run(8*time.Second, 200*time.Millisecond)
		s.report("memory load")
		_, err := xl("mem-set", g.name, strconv.Itoa(smallMiB-8))
		t.must(err)
		s.run(6*time.Second, 200*time.Millisecond)
		s.report("balloon down")
		_, err = xl("mem-set", g.name, strconv.Itoa(smallMiB))
		t.must(err)
		s.run(6*time.Second, 200*time.Millisecond)
		s.report("balloon up")
		t.say(g, "load idle")
		s.run(2*time.Second, 50*time.Millisecond)
		s.report("short epochs")
	}
}

// noUnseenWriteBooting is the same while the guest sets up all that it shares
// with Xen.
func noUnseenWriteBooting(spec guestSpec) func(t *try) {
	return func(t *try) {
		g := t.guest(spec)
		s := t.soak(g)
		t.must(t.ctl.Unpause(g.dom))
		for end := time.Now().Add(bootTime); !g.booted(); s.run(time.Second, time.Second) {
			if time.Now().After(end) {
				t.fail("after %v: got no word of the guest's init, want the guest booted", bootTime)
				return
			}
		}
		s.run(5*time.Second, time.Second)
		s.report("boot")
	}
}

var memoryCases = []testCase{
	{"unseen-write-is-found", func(t *try) {
		// The meter of the next cases, tried with a write that Xen cannot see.
		g := t.guest(guestSpec{})
		s := t.soak(g)
		if unseen := s.round(false); len(unseen) > 0 {
			t.fail("a guest that never ran: got changed pages %#x, want none", unseen)
		}
		m := t.page(g, someGFN)
		m.Bytes()[4095] ^= 1
		t.must(m.Close())
		if unseen := s.round(false); !slices.Equal(unseen, []abi.GFN{someGFN}) {
			t.fail("a write by dom0: got %#x, want %#x", unseen, uint64(someGFN))
		}
	}},
	{"no-unseen-write-booting-1-vcpu", noUnseenWriteBooting(guestSpec{debian: true})},
	{"no-unseen-write-booting-2-vcpus", noUnseenWriteBooting(guestSpec{vcpus: 2})},
	{"no-unseen-write-1-vcpu", noUnseenWrite(1)},
	{"no-unseen-write-2-vcpus", noUnseenWrite(2)},
}
