// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/foreignmem"
	"github.com/kemari-ft/kemari/xen/kemariop"
)

// view is the memory of a guest, with a hash of each page: 0 for a hole.
type view struct {
	dom  abi.DomID
	fm   *foreignmem.Handle
	parts
	hash map[abi.GFN]uint64
}

// parts are mappings of ranges of gfns.
type parts []part

type part struct {
	first abi.GFN
	m     *foreignmem.Mapping
}

// view maps what a PVH guest of libxl has: RAM from 0 on, and special pages
// below 4 GiB. What lies elsewhere is mapped when it appears on a dirty list.
func (t *try) view(g *guest) *view {
	v := &view{dom: g.dom, fm: t.fm, hash: map[abi.GFN]uint64{}}
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
		v.parts = append(v.parts, part{first, m})
	}
	return err
}

// changed maps a gfn again, or for the first time.
func (v *view) changed(gfn abi.GFN) error {
	for _, p := range v.parts {
		if gfn >= p.first && gfn < p.first+abi.GFN(p.m.Len()) {
			return p.m.Remap(int(gfn-p.first), gfn)
		}
	}
	return v.add(gfn, gfn+1)
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
			gfn := p.first + abi.GFN(i)
			if h != v.hash[gfn] {
				v.hash[gfn] = h
				diff = append(diff, gfn)
			}
		}
	}
	return diff
}

// hash is never 0. It is a bijection of each single word, and quick where
// processors are emulated.
func hash(page []byte) uint64 {
	h := uint64(len(page))
	for ; len(page) >= 8; page = page[8:] {
		h = (h ^ binary.LittleEndian.Uint64(page)) * 0x9e3779b97f4a7c15
		h ^= h >> 32
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

// round syncs once: all that changed must be on the dirty list, or among the
// pages which are sent always.
func (s *soak) round(first bool) {
	t := s.t
	r := t.sync(s.g)
	equal(t, "flags", r.Flags, 0)
	listed := map[abi.GFN]bool{}
	for _, e := range t.dirty(s.shared, r) {
		gfn, p2m := kemariop.DirtyGFN(e)
		listed[gfn] = true
		if p2m {
			t.must(s.v.changed(gfn))
		}
	}
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
				t.fail("epoch %d: gfn %#x changed, got it on no list, want it on one", r.Epoch, uint64(gfn))
			}
		}
	}
	s.always = always
	t.resume(s.g, r)
	if len(t.bad) > 20 {
		panic(stop{})
	}
}

// run syncs for a while: when an event is held, and at the latest after an
// interval.
func (s *soak) run(d, interval time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		next := time.Now().Add(interval)
		for time.Now().Before(next) && s.t.state(s.g)&triggered == 0 {
			time.Sleep(5 * time.Millisecond)
		}
		s.round(false)
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
		g := t.guest(guestSpec{vcpus: vcpus})
		s := t.soak(g)
		t.must(t.ctl.Unpause(g.dom))
		t.boot(g, func() { s.run(time.Second, 300*time.Millisecond) })
		s.report("boot")
		s.run(3*time.Second, 100*time.Millisecond)
		s.report("idle")
		t.say(g, "load mem=8,8")
		s.run(8*time.Second, 200*time.Millisecond)
		s.report("memory load")
		_, err := xl("mem-set", g.name, "72")
		t.must(err)
		s.run(6*time.Second, 200*time.Millisecond)
		s.report("balloon down")
		_, err = xl("mem-set", g.name, "80")
		t.must(err)
		s.run(6*time.Second, 200*time.Millisecond)
		s.report("balloon up")
		t.say(g, "load idle")
		s.run(2*time.Second, 50*time.Millisecond)
		s.report("short epochs")
	}
}

var memoryCases = []testCase{
	{"no-unseen-write-1-vcpu", noUnseenWrite(1)},
	{"no-unseen-write-2-vcpus", noUnseenWrite(2)},
}
