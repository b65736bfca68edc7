// SPDX-License-Identifier: Apache-2.0

package blkif

import (
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kemari-ft/kemari/backend/gate"
	"github.com/kemari-ft/kemari/xen/abi"
)

// pause is how long something must not happen before it counts as not happening,
// where it is a mutex that keeps it from happening: synctest knows nothing of those.
const pause = 200 * time.Millisecond

// sync is what the toolstack does for a device while the guest is paused.
func (b *bench) sync() []gate.Indices {
	b.Freeze()
	defer b.Thaw()
	return b.Capture(nil)
}

func (b *bench) gate() {
	b.Freeze()
	defer b.Thaw()
	b.Gate()
}

// I1: a write waits for the commit of the sync that holds it, and asks for one;
// a read does not.
func TestI1WriteWaitsForCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := connected(t, 2, 1)
		b.gate()
		b.h.page(1)
		for n, d := range b.drivers {
			if s := d.do(rw(abi.BlkifOpRead, 0, seg(1, 0, 0))); s != okay {
				t.Fatalf("read on queue %d: status %d", n, s)
			}
			d.put(rw(abi.BlkifOpWrite, uint64(n), seg(1, 0, 0)), rw(abi.BlkifOpRead, 0, seg(1, 0, 0)))
			recv(t, b.syncs, "demand for a sync")
		}
		at := b.sync()
		synctest.Wait()
		if n := b.store.written(); n != 0 {
			t.Fatalf("%d writes reached the disk before the commit", n)
		}
		if err := b.Commit(at); err != nil {
			t.Fatal(err)
		}
		for n, d := range b.drivers {
			if s := d.wait(2); s[0] != okay || s[1] != okay {
				t.Errorf("queue %d: statuses %v", n, s)
			}
		}
		if n := b.store.written(); n != 2 {
			t.Errorf("%d writes reached the disk", n)
		}
		b.drivers[0].put(rw(abi.BlkifOpWrite, 5, seg(1, 0, 0)))
		b.Ungate()
		b.drivers[0].wait(1)
	})
}

// binding does something while a device binds a port: its rings are open then, and
// not yet to be found.
type binding struct {
	Events
	meanwhile func()
}

func (b binding) BindInterdomain(dom abi.DomID, port abi.Port) (abi.Port, error) {
	b.meanwhile()
	return b.Events.BindInterdomain(dom, port)
}

// I1: protection may begin, or end, while a front end is being connected.
func TestI1GateMovesWhileConnecting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, closing := range []bool{true, false} {
			var b *bench
			b = newBench(t, 1, 1, func(c *Config) {
				c.Events = binding{c.Events, func() {
					if closing {
						b.Gate()
					} else {
						b.Ungate()
					}
				}}
			})
			if !closing {
				b.Gate()
			}
			if err := b.Connect(b.channels()); err != nil {
				t.Fatal(err)
			}
			b.wire()
			b.h.page(1)
			b.drivers[0].put(rw(abi.BlkifOpWrite, 0, seg(1, 0, 0)))
			if closing {
				recv(t, b.syncs, "demand for a sync")
				synctest.Wait()
				if n := b.store.written(); n != 0 {
					t.Errorf("%d writes reached the disk before any commit", n)
				}
				b.Ungate()
			}
			b.drivers[0].wait(1)
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// I15: a write is answered when it is stored, not before.
func TestI15WriteIsAnsweredWhenStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := connected(t, 1, 1)
		b.hold(t)
		b.h.page(1)
		d := b.drivers[0]
		d.put(rw(abi.BlkifOpWrite, 0, seg(1, 0, 0)))
		recv(t, b.store.arrived, "write")
		synctest.Wait()
		if s := d.responses(); len(s) != 0 {
			t.Fatalf("answered with status %d before it is stored", s[0])
		}
		b.store.proceed <- struct{}{}
		d.wait(1)
	})
}

func TestHasOutputOfAllQueues(t *testing.T) {
	b := connected(t, 2, 1)
	b.gate()
	b.h.page(1)
	output := func() bool {
		b.Freeze()
		defer b.Thaw()
		return b.HasOutput()
	}
	if output() {
		t.Error("output before anything was asked for")
	}
	b.drivers[1].put(rw(abi.BlkifOpFlushDiskcache, 0))
	if !output() {
		t.Error("a flush on the second queue is no output")
	}
	if err := b.Commit(b.sync()); err != nil {
		t.Fatal(err)
	}
	b.drivers[1].wait(1)
	if output() {
		t.Error("output that is committed")
	}
}

// I3: Freeze waits for a grant copy in progress, and until Thaw no byte of the
// guest's memory changes, whatever the disk completes.
func TestI3FrozenDeviceLeavesGuestMemoryAlone(t *testing.T) {
	b := connected(t, 1, 1)
	b.holdCopies(t)
	b.hold(t)
	d := b.drivers[0]
	fill(b.store.data, "data of the disk")
	for ref := range abi.GrantRef(3) {
		b.h.page(ref)
	}
	for ref := range abi.GrantRef(3) {
		d.put(rw(abi.BlkifOpRead, uint64(ref)*8, seg(ref, 0, 7)))
	}
	for range 3 {
		recv(t, b.store.arrived, "access to the disk")
	}
	// One read is being copied to the guest when the freeze begins.
	b.store.proceed <- struct{}{}
	recv(t, b.h.copying, "grant copy")
	frozen := make(chan struct{})
	go func() {
		b.Freeze()
		close(frozen)
	}()
	select {
	case <-frozen:
		t.Fatal("frozen in the middle of a grant copy")
	case <-time.After(pause):
	}
	b.h.proceed <- struct{}{}
	recv(t, frozen, "freeze")
	before := b.h.memory()
	b.store.proceed <- struct{}{}
	b.store.proceed <- struct{}{}
	b.h.proceed <- struct{}{}
	b.h.proceed <- struct{}{}
	time.Sleep(pause)
	if !maps.Equal(before, b.h.memory()) {
		t.Fatal("the guest's memory changed while frozen")
	}
	b.Thaw()
	for _, s := range d.wait(3) {
		if s != okay {
			t.Errorf("status %d", s)
		}
	}
}

// I4: between two syncs no page of the guest changes but those that Xen has
// noted and those of the rings, which every epoch carries.
func TestI4NoUnseenWrite(t *testing.T) {
	b := newBench(t, 2, 2)
	if err := b.Connect(b.channels()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	b.wire()
	b.gate()
	rings := map[abi.GrantRef]bool{}
	for _, c := range b.channels() {
		rings[c.Refs[0]] = true // stands for all pages of this ring
	}
	const (
		written = abi.GrantRef(1)  // to the disk
		desc    = abi.GrantRef(2)  // descriptors of an indirect request
		part    = abi.GrantRef(10) // read into
		whole   = abi.GrantRef(20)
		many    = abi.GrantRef(30) // more than a batch of them
	)
	const n = copyBatch + 5
	b.h.page(written)
	b.h.page(part)
	b.h.page(whole)
	for k := range abi.GrantRef(n) {
		b.h.page(many + k)
		copy(b.h.page(desc)[k*segmentSize:], seg(many+k, 0, 7))
	}
	for round, tag := range []string{"first ", "second "} {
		fill(b.store.data, tag) // by others, beneath the guest
		b.sync()
		b.h.harvest()
		before := b.h.memory()
		for _, d := range b.drivers {
			d.put(rw(abi.BlkifOpRead, 8, seg(part, 2, 2), seg(whole, 0, 7)), indirect(abi.BlkifOpRead, 16, n, desc))
			if s := d.wait(2); s[0] != okay || s[1] != okay {
				t.Fatalf("round %d: statuses %v", round, s)
			}
			d.put(rw(abi.BlkifOpWrite, 4096, seg(written, 0, 7)))
			recv(t, b.syncs, "demand for a sync")
		}
		at := b.sync()
		dirty, changed := b.h.harvest(), 0
		for ref, now := range b.h.memory() {
			if now == before[ref] {
				continue
			}
			changed++
			if !dirty[ref] && !rings[ref] {
				t.Errorf("round %d: the page granted as %d changed, and nobody knows", round, ref)
			}
		}
		if want := 2 + n + len(rings); changed != want {
			t.Errorf("round %d: %d pages changed, not %d: the test proves nothing", round, changed, want)
		}
		if err := b.Commit(at); err != nil {
			t.Fatal(err)
		}
		for _, d := range b.drivers {
			d.wait(1)
		}
	}
}

// I5: after a sync the front end's next push is an event, and so is it after
// one that ends without a capture.
func TestI5PushAfterSyncIsAnEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := connected(t, 1, 1)
		b.gate()
		b.h.page(1)
		d := b.drivers[0]
		for k, end := range []func(){b.Rearm, func() { b.Capture(nil) }} {
			for range 3 {
				d.do(rw(abi.BlkifOpRead, 0, seg(1, 0, 0)))
			}
			// The back end is parked behind a write it may not take.
			d.put(rw(abi.BlkifOpWrite, 0, seg(1, 0, 0)))
			recv(t, b.syncs, "demand for a sync")
			b.Freeze()
			end()
			b.Thaw()
			synctest.Wait()
			events := 0
			d.event = func() { events++ }
			d.put(rw(abi.BlkifOpWrite, 1, seg(1, 0, 0)))
			if events != 1 {
				t.Errorf("case %d: %d events for the first push after the sync", k, events)
			}
			b.wire()
			if err := b.Commit(b.sync()); err != nil {
				t.Fatal(err)
			}
			d.wait(2)
		}
	})
}

func TestConnectDuringProtectionIsGated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := connected(t, 1, 1)
		b.gate()
		b.h.page(1)
		old := b.sync()
		if err := b.Disconnect(); err != nil {
			t.Fatal(err)
		}
		if err := b.Connect(b.channels()); err != nil {
			t.Fatal(err)
		}
		b.wire()
		b.drivers[0].put(rw(abi.BlkifOpWrite, 0, seg(1, 0, 0)))
		if err := b.Commit(old); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if b.store.written() != 0 {
			t.Fatal("an uncommitted write reached the disk after a reconnection")
		}
		if err := b.Commit(b.sync()); err != nil {
			t.Fatal(err)
		}
		b.drivers[0].wait(1)
	})
}

func TestSyncDoesNotAllocate(t *testing.T) {
	b := connected(t, 2, 1)
	b.gate()
	at := make([]gate.Indices, 0, MaxQueues)
	n := testing.AllocsPerRun(100, func() {
		b.Freeze()
		b.HasOutput()
		b.Rearm()
		at = b.Capture(at[:0])
		b.Thaw()
		if err := b.Commit(at); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations per sync, want 0", n)
	}
}
