// SPDX-License-Identifier: Apache-2.0

package primary

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"syscall"
	"testing"

	"github.com/kemari-ft/kemari/toolstack/guestmem"
	"github.com/kemari-ft/kemari/toolstack/hotset"
	"github.com/kemari-ft/kemari/toolstack/link"
	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/foreignmem"
	"github.com/kemari-ft/kemari/xen/kemariop"
	"github.com/kemari-ft/kemari/xen/privcmd"
)

// Where things are in the memory of the fake guest.
const (
	storeGFN abi.GFN = 8 + iota
	consoleGFN
	sharedInfoGFN
	grantGFN
	fifoWordsGFN
	fifoControlGFN
	vcpuInfoGFN
	runstateGFN
	ring0GFN
	ring1GFN
	otherRingGFN // of a front end that connects anew
	otherInfoGFN // of a vCPU that registers its area anew
	guestPages   = 32
)

// fakeGuest is a guest's memory, and the buffer in which Xen tells of it.
type fakeGuest struct {
	t      *testing.T
	mem    []byte
	dirty  []abi.GFN // as Xen notes it
	named  []uint64  // the pages that Xen says it writes to
	shared []byte
	copy   []byte // what the secondary has
	staged map[abi.GFN]role
	refs   []abi.GrantRef // of the rings
	n      byte           // makes each write another one

	capture *Capture
	out     bytes.Buffer
	writer  *stream.Writer
	reader  *stream.Reader
	epoch   uint64
}

func named(kind stream.AlwaysKind, gfn abi.GFN) uint64 {
	return uint64(kind)<<56 | uint64(gfn)
}

func newFakeGuest(t *testing.T) *fakeGuest {
	g := &fakeGuest{
		t: t, mem: make([]byte, guestPages*abi.PageSize), copy: make([]byte, guestPages*abi.PageSize),
		shared: make([]byte, 5*abi.PageSize),
		named: []uint64{
			named(stream.AlwaysSharedInfo, sharedInfoGFN), named(stream.AlwaysGrant, grantGFN),
			named(stream.AlwaysFIFO, fifoWordsGFN), named(stream.AlwaysFIFO, fifoControlGFN),
			named(stream.AlwaysVCPU, vcpuInfoGFN), named(stream.AlwaysVCPU, runstateGFN),
		},
	}
	// struct xen_kemari_shared: see xen/include/public/kemari.h.
	le := binary.LittleEndian
	le.PutUint64(g.shared, 0x4952414d454b4e58)
	for i, v := range []uint32{
		kemariop.InterfaceVersion, uint32(len(g.shared) / abi.PageSize),
		1 * abi.PageSize, 2 * abi.PageSize, abi.PageSize / 8, // dirty
		3 * abi.PageSize, abi.PageSize / 8, // always
		4 * abi.PageSize, abi.PageSize, // state
	} {
		le.PutUint32(g.shared[8+4*i:], v)
	}
	shared, err := kemariop.NewShared(foreignmem.FromBytes(g.shared))
	if err != nil {
		t.Fatal(err)
	}
	g.capture = &Capture{
		dom: 7, shared: shared,
		mem:    guestmem.FromMapping(0, foreignmem.FromBytes(g.mem)),
		grants: foreignmem.FromBytes(g.page(grantGFN)),
		fixed: []stream.AlwaysPage{
			{Kind: stream.AlwaysStore, GFN: storeGFN}, {Kind: stream.AlwaysConsole, GFN: consoleGFN},
		},
		sent: map[abi.GFN][]byte{}, sentAs: map[abi.GFN]role{}, alwaysGFNs: map[abi.GFN]bool{},
	}
	g.writer = stream.NewWriter(&g.out)
	g.must(g.writer.Hello(stream.Hello{Role: stream.Primary, ABI: 1, Generation: 1, CPUVendor: "AuthenticAMD", XenVersion: "4.20.0"}))
	g.must(g.writer.Shell(stream.Shell{VCPUs: 1, EpochPages: 1024, MemoryPages: guestPages, MaxGFN: guestPages - 1, JSON: []byte("{}")}))
	g.reader = stream.NewReader(&g.out, stream.Primary, stream.Limits{EpochPages: 4096, MemoryPages: 4096, MaxGFN: 4096}, stream.NewPool())
	for gfn := range abi.GFN(guestPages) {
		g.scribble(gfn)
	}
	g.grant(1, ring0GFN)
	g.grant(2, ring1GFN)
	g.grant(3, ring0GFN)
	g.refs = []abi.GrantRef{1, 2}
	return g
}

func (g *fakeGuest) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

func (g *fakeGuest) page(gfn abi.GFN) []byte { return g.mem[gfn*abi.PageSize:][:abi.PageSize] }

// scribble is a write that Xen does not note: its own, or one through a mapping
// of dom0's.
func (g *fakeGuest) scribble(gfn abi.GFN) {
	g.n++
	g.page(gfn)[3000+int(gfn)] = g.n
}

// write is one that Xen notes: the guest's, or a grant copy.
func (g *fakeGuest) write(gfn abi.GFN) {
	g.scribble(gfn)
	g.dirty = append(g.dirty, gfn)
}

// grant is the guest's entry in its grant table.
func (g *fakeGuest) grant(ref abi.GrantRef, gfn abi.GFN) {
	binary.LittleEndian.PutUint32(g.page(grantGFN)[8*ref+4:], uint32(gfn))
}

// harvest is what Xen does when it closes an epoch.
func (g *fakeGuest) harvest() kemariop.SyncResult {
	g.t.Helper()
	g.epoch++
	r := kemariop.SyncResult{
		Epoch: g.epoch, DirtyHalf: uint32(g.epoch & 1), DirtyNr: uint32(len(g.dirty)),
		AlwaysNr: uint32(len(g.named)), StateLen: 16,
	}
	le := binary.LittleEndian
	for i, gfn := range g.dirty {
		le.PutUint64(g.shared[(1+int(r.DirtyHalf))*abi.PageSize+8*i:], uint64(gfn))
	}
	for i, entry := range g.named {
		le.PutUint64(g.shared[3*abi.PageSize+8*i:], entry)
	}
	g.dirty = g.dirty[:0]
	return r
}

// sync sends an epoch and applies it.
func (g *fakeGuest) sync() {
	g.t.Helper()
	r := g.harvest()
	g.must(g.capture.SetRings(g.refs))
	_, err := g.capture.Epoch(g.writer, 1, g.epoch, r, g.epoch == 1, nil, nil)
	g.must(err)
	g.apply()
}

// apply takes an epoch from the stream and writes it to the copy.
func (g *fakeGuest) apply() {
	g.t.Helper()
	for {
		msg, err := g.reader.Next()
		g.must(err)
		switch m := msg.(type) {
		case *stream.Batch:
			for i, gfn := range m.GFNs {
				copy(g.copied(gfn), m.Data[i*abi.PageSize:])
			}
			for _, gfn := range m.Zeros {
				clear(g.copied(gfn))
			}
		case *stream.Epoch:
			for i := range m.Pages() {
				gfn, data := m.Page(i)
				copy(g.copied(gfn), data)
			}
			for i := range m.Patches() {
				gfn, set, data := m.Lines(i)
				set.Patch(g.copied(gfn), data)
			}
			for _, gfn := range m.Zeros {
				clear(g.copied(gfn))
			}
			staged := map[abi.GFN]role{}
			for _, p := range m.Always {
				staged[p.GFN] = role{p.Kind, p.Index}
				// replica.Stage drops such an epoch.
				if (p.Data == nil || p.Lines != 0) && g.staged[p.GFN] != staged[p.GFN] {
					g.t.Fatalf("epoch %d: page %#x is %v, it was %v, and not all of it was sent", m.Number, uint64(p.GFN), staged[p.GFN], g.staged[p.GFN])
				}
				if p.Lines != 0 {
					p.Lines.Patch(g.copied(p.GFN), p.Data)
				} else if p.Data != nil {
					copy(g.copied(p.GFN), p.Data)
				}
			}
			g.staged = staged
			m.Release()
			g.capture.Committed()
			return
		}
	}
}

func (g *fakeGuest) copied(gfn abi.GFN) []byte { return g.copy[gfn*abi.PageSize:][:abi.PageSize] }

// I4: whatever changes in the guest between two syncs, whoever writes it, the
// secondary gets it.
func TestI4NoUnseenWrite(t *testing.T) {
	type change struct {
		what string
		do   func(*fakeGuest)
	}
	changes := []change{
		{"the guest's write, or a grant copy", func(g *fakeGuest) { g.write(20) }},
		{"the guest's write to a ring", func(g *fakeGuest) { g.write(ring1GFN) }},
		{"another ring", func(g *fakeGuest) {
			if g.epoch == 1 {
				g.scribble(ring1GFN) // the last response in it
				g.grant(2, otherRingGFN)
			}
			g.scribble(otherRingGFN)
		}},
		{"another vcpu_info", func(g *fakeGuest) {
			if g.epoch == 1 {
				g.scribble(vcpuInfoGFN)
				g.named[4] = named(stream.AlwaysVCPU, otherInfoGFN)
			}
			g.scribble(otherInfoGFN)
		}},
	}
	for what, gfn := range map[string]abi.GFN{
		"xenstored": storeGFN, "xenconsoled": consoleGFN, "a response of the first disk": ring0GFN,
		"a response of the second disk": ring1GFN, "shared_info": sharedInfoGFN, "a grant in use": grantGFN,
		"an event word": fifoWordsGFN, "a queue head": fifoControlGFN, "vcpu_info": vcpuInfoGFN, "runstate": runstateGFN,
	} {
		changes = append(changes, change{what, func(g *fakeGuest) { g.scribble(gfn) }})
	}
	for _, c := range changes {
		t.Run(c.what, func(t *testing.T) {
			g := newFakeGuest(t)
			g.sync()
			for epoch := range 3 {
				before := bytes.Clone(g.mem)
				c.do(g)
				if bytes.Equal(before, g.mem) {
					t.Fatal("nothing changed: the test proves nothing")
				}
				g.sync()
				if unseen := g.unseen(); len(unseen) > 0 {
					t.Fatalf("epoch %d: the secondary lacks the changes of gfns %v", epoch+2, unseen)
				}
			}
		})
	}
}

// I4: a guest that runs during the first copy moves a page of Xen's away, and
// has memory where it was.
func TestFirstCopyFollowsXensPages(t *testing.T) {
	const away abi.GFN = guestPages - 1
	g := newFakeGuest(t)
	s := &Session{capture: g.capture, conn: &link.Conn{Writer: g.writer}}
	g.must(s.capture.SetRings([]abi.GrantRef{1, 2}))
	special := map[abi.GFN]bool{sharedInfoGFN: true, grantGFN: true}
	g.must(g.writer.Begin(1, 1, true))
	for gfn := range abi.GFN(guestPages) {
		if !special[gfn] {
			g.must(g.writer.Page(gfn, g.page(gfn)))
		}
	}
	g.named[0] = named(stream.AlwaysSharedInfo, away)
	g.scribble(away)
	g.scribble(sharedInfoGFN)
	g.must(s.copyRound([]abi.GFN{sharedInfoGFN, away, sharedInfoGFN, 20}, special, s.capture.FixedGFNs()))
	_, err := g.capture.LastRound(g.writer, g.harvest(), s.unsent, nil, nil)
	g.must(err)
	g.apply()
	if unseen := g.unseen(); len(unseen) > 0 {
		t.Errorf("the secondary lacks the contents of gfns %v", unseen)
	}
}

func (g *fakeGuest) unseen() (gfns []string) {
	for gfn := range abi.GFN(guestPages) {
		if !bytes.Equal(g.page(gfn), g.copied(gfn)) {
			gfns = append(gfns, fmt.Sprintf("%#x", uint64(gfn)))
		}
	}
	return gfns
}

// What is told of the listed pages, for the choice of the hot ones: a page that
// changes each time is told from one that does not, and one that is sent always
// costs nothing more.
func TestListedPagesThatChange(t *testing.T) {
	g := newFakeGuest(t)
	g.sync()
	for epoch := range 3 {
		g.write(20)
		g.dirty = append(g.dirty, 21, sharedInfoGFN)
		g.sync()
		known := epoch > 0
		want := []listedPage{{sharedInfoGFN, true}, {20, known}, {21, false}}
		if got := g.capture.listed; !slices.Equal(got, want) {
			t.Errorf("epoch %d: got %v, want %v", g.epoch, got, want)
		}
	}
}

// Warm pages are named with the first epoch, so that those of a daemon before this one
// are so no more, then once in a while, and not any more when Xen refuses.
func TestWarmPagesAreNamed(t *testing.T) {
	g := newFakeGuest(t)
	g.capture.hot = hotset.New(0)
	calls, errno := 0, syscall.Errno(0)
	op, err := kemariop.New(privcmd.Simulated(func(uint64, [5]uint64) (int64, syscall.Errno) {
		calls++
		return 0, errno
	}), 7)
	g.must(err)
	g.capture.op = op
	g.sync() // the full copy
	epoch := func(n int) error {
		// Warm by turns.
		if g.dirty = append(g.dirty, 20); n%2 == 0 {
			g.write(20)
		}
		g.sync()
		return g.capture.NamePages()
	}
	for n := range 2*warmEvery + 1 {
		g.must(epoch(n))
		if want := 1 + n/warmEvery; calls != want {
			t.Fatalf("after %d epochs Xen was told %d times, want %d", n+1, calls, want)
		}
	}
	if want := []abi.GFN{20}; !slices.Equal(g.capture.warm, want) {
		t.Errorf("warm are %v, want %v", g.capture.warm, want)
	}
	errno = syscall.ENOMEM
	var failed int
	for n := range 4 * warmEvery {
		if epoch(n) != nil {
			failed++
		}
	}
	if failed != 1 || calls != 4 {
		t.Errorf("Xen, which refuses, was asked %d times, of which %d were told; want once", calls-3, failed)
	}
}

// TestCaptureDoesNotAllocatePerPage: what an epoch costs in allocations does not
// depend on how much the guest has written.
func TestCaptureDoesNotAllocatePerPage(t *testing.T) {
	g := newFakeGuest(t)
	g.sync()
	w := stream.NewWriter(io.Discard)
	send := func(pages int) float64 {
		return testing.AllocsPerRun(10, func() {
			for i := range pages {
				g.write(abi.GFN(guestPages - 1 - i))
			}
			_, err := g.capture.Epoch(w, 1, g.epoch+1, g.harvest(), false, nil, nil)
			g.must(err)
			g.capture.Committed()
		})
	}
	send(12) // what is reused grows
	if few, many := send(2), send(12); few != many {
		t.Errorf("%v allocations with 2 pages, %v with 12", few, many)
	}
}
