// SPDX-License-Identifier: Apache-2.0

package gate_test

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// I1 and I6, and the whole life of a ring: any order of pushes, completions,
// syncs, commits and failovers. Every request of the surviving timeline is
// answered exactly once, in its slot, with the data of that timeline; nothing
// uncommitted reaches the disk; no request waits without a sync on its way.
func TestI1I6Timeline(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				if w.frozen != nil {
					t.Skip("the guest is paused")
				}
				for range rapid.IntRange(1, 3).Draw(t, "n") {
					sector := rapid.IntRange(0, sectors-1).Draw(t, "sector")
					write := rapid.Bool().Draw(t, "write")
					if w.guest.front.Free() == 0 || w.guest.busy(sector, write) {
						break
					}
					w.nextID++
					w.push(op{id: w.nextID, write: write, sector: sector, value: w.nextID})
				}
				if w.guest.front.Push() {
					w.notifyBack()
				}
			},
			"serve": func(t *rapid.T) {
				if w.frozen != nil {
					t.Skip()
				}
				w.serve(rapid.IntRange(1, 9).Draw(t, "n"))
			},
			"finish": func(t *rapid.T) {
				if len(w.work) == 0 {
					t.Skip()
				}
				w.finish(rapid.SampledFrom(slices.Sorted(maps.Keys(w.work))).Draw(t, "which"))
			},
			"receive": func(t *rapid.T) {
				if w.frozen != nil {
					t.Skip()
				}
				w.receive()
			},
			"freeze": func(t *rapid.T) {
				if w.frozen != nil {
					t.Skip()
				}
				w.freeze()
			},
			"capture": func(t *rapid.T) {
				if w.frozen == nil || w.captured != nil {
					t.Skip()
				}
				w.capture()
			},
			"release": func(t *rapid.T) {
				if w.frozen == nil {
					t.Skip()
				}
				output, err := w.back.HasOutput()
				if err != nil {
					t.Fatal(err)
				}
				if output && w.captured == nil && w.committed != nil {
					t.Skip("there is output to sync")
				}
				again := output && w.captured != nil
				w.release()
				w.trigger = again // decided again when the epoch is committed
			},
			"commit": func(t *rapid.T) {
				if w.captured == nil {
					t.Skip()
				}
				w.commit()
			},
			"failover": func(t *rapid.T) {
				if w.committed == nil {
					t.Skip()
				}
				w.failover()
			},
			"": func(t *rapid.T) { w.checkProgress() },
		})
		w.drain()
		if w.disk != w.guest.expect {
			t.Fatalf("the disk holds %v, the guest was told %v", w.disk, w.guest.expect)
		}
	})
}

// checkProgress: a request that only a sync can let pass has one on its way.
func (w *world) checkProgress() {
	if w.frozen != nil || w.trigger || !w.idle || w.committed == nil {
		return
	}
	covered := w.committed.guest
	if w.captured != nil {
		covered = w.captured.guest
	}
	for i, o := range w.guest.outstanding {
		if _, working := w.work[i]; o.write && !working && !covered.pushed[o.id] {
			w.t.Fatalf("write %d waits for a sync nobody asks for", i)
		}
	}
}

// I3: between Freeze and Thaw the ring does not change from this side and
// nothing is handed out, whatever completes meanwhile.
func TestI3FrozenRingDoesNotChange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		n := rapid.IntRange(1, 8).Draw(t, "requests")
		for k := range n {
			w.push(op{id: uint64(k + 1), sector: k % sectors})
		}
		w.guest.front.Push()
		w.serve(rapid.IntRange(1, n).Draw(t, "taken"))
		w.freeze()
		for _, i := range slices.Sorted(maps.Keys(w.work)) {
			w.finish(i)
		}
		buf := make([]byte, slotSize)
		if _, s, err := w.back.Next(buf); err == nil {
			t.Fatalf("a frozen ring was served: %s", s)
		}
		w.checkFrozen()
		w.thaw()
		w.receive()
	})
}

// I5: the first push after a pause notifies, even if it is small and whatever
// was pushed, taken and answered before.
func TestI5FirstPushAfterPauseNotifies(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		before := rapid.IntRange(0, 6).Draw(t, "before")
		for k := range before {
			w.push(op{id: uint64(k + 1), sector: k % sectors})
			w.guest.front.Push()
		}
		w.serve(rapid.IntRange(0, 7).Draw(t, "taken"))
		w.freeze()
		if rapid.Bool().Draw(t, "capture") {
			w.capture()
		} else {
			w.release()
		}
		w.nextID = 100
		for range rapid.IntRange(1, 8-before).Draw(t, "pushes") {
			w.nextID++
			w.push(op{id: w.nextID, write: true})
		}
		if !w.guest.front.Push() {
			t.Fatal("the first push after the pause does not notify")
		}
	})
}
