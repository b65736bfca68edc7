// SPDX-License-Identifier: Apache-2.0

package check

import (
	"strings"
	"testing"
	"time"
)

// statusAt is the status of an undisturbed guest after ticks ticks.
func statusAt(ticks uint64) Status {
	_, s := image(ticks+4, ticks, ticks+3)
	c := chainOf(testBoot, 64, ticks*10)
	s.Ticks = ticks
	s.Chain = ChainStatus{Link: c.Link(), Hash: c.Head(), Slots: 64, Verified: true}
	s.Disk.Synced, s.Disk.SyncedLast = ticks/3, ticks/3*3
	s.Clocks = ClockStatus{Samples: ticks * 20, MonoNs: int64(ticks) * 1e9, TSC: ticks * 2e9, TSCHz: 2e9}
	return s
}

func TestContinuityOfAnUndisturbedGuest(t *testing.T) {
	if err := Continuity(statusAt(10), statusAt(30), 0); err != nil {
		t.Error(err)
	}
	if err := Continuity(statusAt(10), statusAt(10), 0); err != nil {
		t.Errorf("with itself: %v", err)
	}
}

func TestContinuityAllowsBoundedJumpsAndOldOnes(t *testing.T) {
	before, after := statusAt(10), statusAt(30)
	before.Clocks.Anomalies, after.Clocks.Anomalies = 1, 2
	before.Clocks.Recent = []ClockStep{{MonoJump, 1e9, 5e9}} // before the failover: not ours to judge
	after.Clocks.Recent = append(before.Clocks.Recent, ClockStep{MonoJump, 11e9, 200e6})
	if err := Continuity(before, after, 250*time.Millisecond); err != nil {
		t.Error(err)
	}
	if err := Continuity(before, after, 150*time.Millisecond); err == nil || !strings.Contains(err.Error(), "a jump of 200ms at 11s") {
		t.Errorf("got %v, want the jump", err)
	}
}

func TestContinuityBroken(t *testing.T) {
	step := func(what string) func(b, a *Status) {
		return func(b, a *Status) {
			a.Clocks.Anomalies, a.Clocks.Recent = 1, []ClockStep{{what, 11e9, 1000}}
		}
	}
	for _, c := range []struct {
		name  string
		spoil func(before, after *Status)
		want  string
	}{
		{"booted again", func(b, a *Status) { a.BootID = "00000000-0000-4000-8000-000000000009" }, "booted again"},
		{"lost a vCPU", func(b, a *Status) { b.VCPUs = 2 }, "2 vCPUs"},
		{"older memory", func(b, a *Status) { *a = statusAt(9) }, "link 100 and is at 90"},
		{"chain off its course", func(b, a *Status) { a.Chain.Hash[3] ^= 1 }, "recomputed from the seed"},
		{"table damaged", func(b, a *Status) { a.Chain.Verified, a.Chain.BadSlots = false, 7 }, "7 slots"},
		{"table of another size", func(b, a *Status) { a.Chain.Slots = 128 }, "128"},
		{"forgot acknowledged records", func(b, a *Status) { a.Disk.AckedThrough, a.Disk.Acked = 9, 10 }, "forgot records"},
		{"forgot fsynced records", func(b, a *Status) { a.Disk.SyncedLast = 3 }, "forgot records"},
		{"forgot a record beyond", func(b, a *Status) { *a = statusAt(10); a.Disk.Beyond = nil }, "forgot record 13"},
		{"sums changed", func(b, a *Status) { *a = statusAt(10); a.Disk.Digest[0] ^= 1 }, "sums of records 1..10 changed"},
		{"disk vanished", func(b, a *Status) { a.Disk = nil }, "vanished"},
		{"I/O error", func(b, a *Status) { a.Disk.Errors, a.Disk.LastError = 1, "input/output error" }, "input/output error"},
		{"page of the load lost", func(b, a *Status) { a.Memory.Mismatches = 2 }, "2 pages"},
		{"monotonic below", func(b, a *Status) { a.Clocks.MonoNs = 5 }, "backwards"},
		{"steal below", func(b, a *Status) { b.Clocks.StealNs = 1e7 }, "backwards"},
		{"boot id changed in between", func(b, a *Status) { a.Clocks.BootIDChanges = 1 }, "boot id changed"},
		{"backward step", step(MonoBack), "mono_back: a step of 1µs backwards"},
		{"TSC backward step", step(TSCBack), "tsc_back"},
		{"steal backward step", step(StealBack), "steal_back"},
		{"anomalies forgotten", func(b, a *Status) { b.Clocks.Anomalies = 3 }, "3 anomalies"},
		{"more than kept", func(b, a *Status) { a.Clocks.Anomalies, a.Clocks.WorstNs = 9, 7e9 }, "largest ever was 7s"},
	} {
		before, after := statusAt(10), statusAt(30)
		c.spoil(&before, &after)
		err := Continuity(before, after, time.Second)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
