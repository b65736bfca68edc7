// SPDX-License-Identifier: Apache-2.0

package hotset

import (
	"slices"
	"testing"

	"github.com/kemari-ft/kemari/xen/abi"
	"pgregory.net/rapid"
)

// xen is what the hypervisor does with the set: it lists those pages which were hot at
// the harvest before, and those that were written, and counts the faults that the guest
// took.
type xen struct {
	set    *Set
	hot    []abi.GFN
	open   []abi.GFN // with which the list began
	faults int
	turns  int // changes of the set
}

// sync is one in which the guest has written some pages, and changed others, which
// it has written, too.
func (x *xen) sync(written, changed []abi.GFN) {
	list := append(slices.Clone(written), changed...)
	for _, gfn := range list {
		if !slices.Contains(x.open, gfn) {
			x.faults++
		}
	}
	list = append(list, x.open...)
	x.open = slices.Clone(x.hot)
	slices.Sort(list)
	for _, gfn := range slices.Compact(list) {
		x.set.Note(gfn, slices.Contains(changed, gfn), false)
	}
	if hot, moved := x.set.Turn(); moved {
		x.hot = slices.Clone(hot)
		x.turns++
	}
}

func TestPageThatChangesAlwaysFaultsNoMore(t *testing.T) {
	x := &xen{set: New(10)}
	for range 1000 {
		x.sync(nil, []abi.GFN{7, 3})
	}
	const most = 2 * (enough + 1) // it is write protected once more before it is named
	if x.faults != most || x.turns != 1 || !slices.Equal(x.hot, []abi.GFN{3, 7}) {
		t.Errorf("%d faults, the set given %d times, hot are %v; want %d, once, 3 and 7", x.faults, x.turns, x.hot, most)
	}
}

// A page that is written each time and has the same contents each time looks like
// one that nobody writes: it comes back less and less often.
func TestPageWrittenAsItWas(t *testing.T) {
	x := &xen{set: New(10)}
	for range 2000 {
		x.sync([]abi.GFN{5}, nil)
	}
	if x.faults > 30 {
		t.Errorf("%d faults in 2000 syncs, want 30 at most", x.faults)
	}
}

func TestPageThatIsLeftAloneBecomesCold(t *testing.T) {
	x := &xen{set: New(10)}
	for range 20 {
		x.sync(nil, []abi.GFN{5})
	}
	for range patience {
		if len(x.hot) != 1 {
			t.Fatal("given up before its time")
		}
		x.sync(nil, nil)
	}
	if len(x.hot) != 0 || x.set.Len() != 0 {
		t.Errorf("after %d syncs hot are %v, want none", patience, x.hot)
	}
}

// What comes in bursts is not the same as what is written as it was.
func TestPatienceIsLost(t *testing.T) {
	x := &xen{set: New(10)}
	for range 20 {
		for range 2 * enough {
			x.sync(nil, []abi.GFN{5})
		}
		for range patience + 2 {
			x.sync(nil, nil)
		}
		if len(x.hot) != 0 {
			t.Fatalf("%d syncs after the burst hot are %v, want none", patience+2, x.hot)
		}
	}
}

func TestPageWrittenNowAndThenIsNotHot(t *testing.T) {
	x := &xen{set: New(10)}
	for i := range 100 {
		if i%enough != 0 {
			x.sync(nil, []abi.GFN{5})
		} else {
			x.sync(nil, nil)
		}
	}
	if x.turns != 0 {
		t.Errorf("the set was given %d times, want never", x.turns)
	}
}

// A page that is listed because of its neighbour is not worth being listed always,
// unless it changes.
func TestPageBesideAnother(t *testing.T) {
	s := New(10)
	for range 10 {
		s.Note(5, false, true)
		s.Note(6, true, true)
		s.Turn()
	}
	if s.Len() != 1 || !s.pages[6].hot {
		t.Errorf("%d pages are hot, want one that changes beside another", s.Len())
	}
}

func TestZeroSetTakesNothing(t *testing.T) {
	var s Set
	for range 10 {
		s.Note(1, true, false)
		if hot, moved := s.Turn(); moved {
			t.Fatalf("hot are %v, want none", hot)
		}
	}
}

// A guest that writes all over its memory does not make the set grow, and the pages
// that it writes always are found among the others.
func TestManyPages(t *testing.T) {
	x := &xen{set: New(4)}
	next := abi.GFN(1000)
	for range 100 {
		for range 2000 {
			x.set.Note(next, true, false)
			next++
		}
		x.sync(nil, []abi.GFN{1, 2, 3, 4, 5})
		if len(x.set.pages) > mostKnown {
			t.Fatalf("%d pages are known, want %d at most", len(x.set.pages), mostKnown)
		}
	}
	if len(x.hot) != 4 {
		t.Errorf("hot are %v, want four of five", x.hot)
	}
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.IntRange(0, 6).Draw(t, "max")
		x := &xen{set: New(most)}
		pages := rapid.SliceOfNDistinct(rapid.Uint64Range(0, 9), 0, 8, rapid.ID)
		for range rapid.IntRange(0, 200).Draw(t, "syncs") {
			var written, changed []abi.GFN
			for _, gfn := range pages.Draw(t, "pages") {
				if rapid.Bool().Draw(t, "changed") {
					changed = append(changed, abi.GFN(gfn))
				} else {
					written = append(written, abi.GFN(gfn))
				}
			}
			x.sync(written, changed)
			// As Xen asks for it.
			if len(x.hot) > most || !slices.IsSorted(x.hot) || len(slices.Compact(slices.Clone(x.hot))) != len(x.hot) {
				t.Fatalf("%v given to Xen, of %d at most", x.hot, most)
			}
			if x.set.Len() != len(x.hot) {
				t.Fatalf("%d are hot, Xen knows %d", x.set.Len(), len(x.hot))
			}
		}
	})
}

func BenchmarkSync(b *testing.B) {
	s := New(1024)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		for gfn := range abi.GFN(400) {
			s.Note(gfn, gfn%2 == 0, false)
		}
		s.Turn()
	}
}
