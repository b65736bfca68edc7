// SPDX-License-Identifier: Apache-2.0

package blkif

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"os"
	"testing"
	"testing/synctest"

	"github.com/kemari-ft/kemari/backend/gate"
	"github.com/kemari-ft/kemari/xen/abi"
)

// takeOver is the other host: the guest's memory as captured, the same disk.
func (b *bench) takeOver(t *testing.T) *bench {
	t.Helper()
	o := newBench(t, len(b.drivers), len(b.drivers[0].ch.Refs))
	for ref, p := range b.h.pages {
		o.h.pages[ref] = bytes.Clone(p)
	}
	for n, d := range b.drivers {
		copy(o.drivers[n].front.Mem, d.front.Mem)
		o.drivers[n].front.ReqProdPvt = d.front.ReqProdPvt
		o.drivers[n].front.RspCons = d.front.RspCons
		maps.Copy(o.drivers[n].ops, d.ops)
	}
	return o
}

// I6: the other host does again what was committed and not answered, answers
// each once, and kicks the guest.
func TestI6OtherHostDoesAgainWhatWasNotAnswered(t *testing.T) {
	b := connected(t, 2, 1)
	b.hold(t)
	b.gate()
	fill(b.h.page(1), "written by the guest")
	for n, d := range b.drivers {
		d.put(rw(abi.BlkifOpWrite, uint64(n), seg(1, 0, 0)), rw(abi.BlkifOpWrite, uint64(8+n), seg(1, 1, 1)))
	}
	b.Freeze()
	at := b.Capture(nil)
	other := b.takeOver(t)
	b.Thaw()
	if err := b.Commit(at); err != nil {
		t.Fatal(err)
	}
	// The first host dies with all four at the disk.
	for range 4 {
		recv(t, b.store.arrived, "access to the disk")
	}
	if err := other.Attach(other.channels(), at); err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	other.wire()
	kicked := map[abi.Port]bool{recv(t, other.h.notified, "kick"): true, recv(t, other.h.notified, "kick"): true}
	for n, d := range other.drivers {
		if !kicked[d.ch.Port] {
			t.Errorf("the front end of queue %d was not kicked", n)
		}
		if s := d.wait(2); s[0] != okay || s[1] != okay {
			t.Errorf("queue %d: statuses %v", n, s)
		}
	}
	if n := other.store.written(); n != 4 {
		t.Errorf("%d writes on the other host, want 4", n)
	}
	// It is not protected yet; what the guest does next passes after Ungate.
	other.Ungate()
	if s := other.drivers[0].do(rw(abi.BlkifOpWrite, 0, seg(1, 0, 0))); s != okay {
		t.Errorf("write after the failover: status %d", s)
	}
}

func TestAttachRefusesAnotherCommit(t *testing.T) {
	b := newBench(t, 1, 1)
	for _, at := range [][]gate.Indices{nil, {{RspProd: 1, ReqProd: 1}}, {{RspProd: 0, ReqProd: 4}}} {
		if err := b.Attach(b.channels(), at); err == nil {
			t.Errorf("attached at %v to an empty ring", at)
		}
	}
}

// I2: a process that dies with requests in work is followed by one that has
// only its journal; the slots are half overwritten.
func TestI2RestartedProcessTrustsItsJournal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := connected(t, 1, 1)
		b.hold(t)
		b.gate()
		fill(b.h.page(1), "written by the guest")
		d := b.drivers[0]
		d.put(rw(abi.BlkifOpWrite, 0, seg(1, 0, 0)), rw(abi.BlkifOpWrite, 1, seg(1, 1, 1)))
		if err := b.Commit(b.sync()); err != nil {
			t.Fatal(err)
		}
		d.put(rw(abi.BlkifOpWrite, 2, seg(1, 2, 2)))
		recv(t, b.store.arrived, "access to the disk")
		recv(t, b.store.arrived, "access to the disk")

		next := b.takeOver(t)
		left, err := os.ReadFile(b.cfg.Journal)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(next.cfg.Journal, left, 0o600); err != nil {
			t.Fatal(err)
		}
		fill(next.drivers[0].front.Slot(0)[:16], "half a response!")
		if err := next.Recover(next.channels()); err != nil {
			t.Fatal(err)
		}
		defer next.Close()
		next.wire()
		if s := next.drivers[0].wait(2); s[0] != okay || s[1] != okay {
			t.Errorf("statuses %v", s)
		}
		synctest.Wait()
		if n := next.store.written(); n != 2 {
			t.Fatalf("%d writes, want the 2 that were committed", n)
		}
		if err := next.Commit(next.sync()); err != nil {
			t.Fatal(err)
		}
		next.drivers[0].wait(1)
	})
}

func TestRecoverNeedsTheJournal(t *testing.T) {
	b := newBench(t, 1, 1)
	if err := b.Recover(b.channels()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want ErrNotExist", err)
	}
	if b.h.mapped != 0 {
		t.Error("a mapping is left")
	}
}

func TestAbandonLeavesWorkForRecover(t *testing.T) {
	b := connected(t, 1, 1)
	b.gate()
	b.h.page(1)
	d := b.drivers[0]
	d.put(rw(abi.BlkifOpWrite, 0, seg(1, 0, 0)))
	if err := b.Abandon(); err != nil {
		t.Fatal(err)
	}
	if err := b.Recover(b.channels()); err != nil {
		t.Fatal(err)
	}
	b.wire()
	recv(t, b.syncs, "demand for a sync")
	if err := b.Commit(b.sync()); err != nil {
		t.Fatal(err)
	}
	d.wait(1)
}
