// SPDX-License-Identifier: Apache-2.0

package check

import (
	"errors"
	"fmt"
	"time"
)

// Continuity says whether after can be the later status of the very guest that
// gave before: same boot, the chain of both on the course of the seed, nothing
// acknowledged taken back, clocks sane. maxJump is how far CLOCK_MONOTONIC may
// have jumped between the two: about 0 across a failover, the longest pause on
// one host. All that is wrong is in the error, one cause per line.
//
// The records themselves are judged by Disk, with after.
func Continuity(before, after Status, maxJump time.Duration) error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if before.BootID != after.BootID {
		wrong("boot id was %s and is %s: the guest booted again", before.BootID, after.BootID)
		return errors.Join(errs...) // nothing else can be compared
	}
	if before.VCPUs != after.VCPUs {
		wrong("the guest had %d vCPUs and has %d", before.VCPUs, after.VCPUs)
	}
	if after.Ticks < before.Ticks {
		wrong("tick %d is before tick %d", after.Ticks, before.Ticks)
	}
	errs = append(errs, chainContinuity(before, after)...)
	errs = append(errs, diskContinuity(before.Disk, after.Disk)...)
	if n := after.Memory.Mismatches; n > 0 {
		wrong("%d pages of the memory load did not hold what was written last", n)
	}
	errs = append(errs, clockContinuity(before.Clocks, after.Clocks, maxJump)...)
	return errors.Join(errs...)
}

func chainContinuity(before, after Status) (errs []error) {
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	b, a := before.Chain, after.Chain
	if b.Slots != a.Slots {
		wrong("the chain's table had %d slots and has %d", b.Slots, a.Slots)
		return errs
	}
	if a.Link < b.Link {
		wrong("the chain was at link %d and is at %d", b.Link, a.Link)
	}
	want, err := chainAt(after.BootID, a.Slots, []uint64{b.Link, a.Link})
	if err != nil {
		return append(errs, err)
	}
	for _, c := range []ChainStatus{b, a} {
		if c.Hash != want[c.Link] {
			wrong("link %d of the chain is %x, recomputed from the seed %x", c.Link, c.Hash, want[c.Link])
		}
		if !c.Verified || c.BadSlots > 0 {
			wrong("at link %d the guest found %d slots of its table that differ from a recomputation", c.Link, c.BadSlots)
		}
	}
	return errs
}

func diskContinuity(b, a *DiskStatus) (errs []error) {
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	switch {
	case b == nil && a == nil:
		return nil
	case b == nil || a == nil:
		wrong("the guest's disk appeared or vanished")
		return errs
	}
	if a.Device != b.Device || a.Size != b.Size {
		wrong("the disk was %s of %d bytes and is %s of %d", b.Device, b.Size, a.Device, a.Size)
	}
	if a.Issued < b.Issued || a.AckedThrough < b.AckedThrough || a.Acked < b.Acked || a.Synced < b.Synced || a.SyncedLast < b.SyncedLast {
		wrong("the guest forgot records: acknowledged %d (through %d, %d fsynced) and now %d (through %d, %d fsynced)",
			b.Acked, b.AckedThrough, b.Synced, a.Acked, a.AckedThrough, a.Synced)
	}
	if a.AckedThrough == b.AckedThrough && a.Digest != b.Digest {
		wrong("the sums of records 1..%d changed in the guest's memory", a.AckedThrough)
	}
	still := make(map[uint64]Sum, len(a.Beyond))
	for _, r := range a.Beyond {
		still[r.Seq] = r.Sum
	}
	for _, r := range b.Beyond {
		if sum, ok := still[r.Seq]; r.Seq > a.AckedThrough && (!ok || sum != r.Sum) {
			wrong("the guest forgot record %d, acknowledged out of order", r.Seq)
		}
	}
	if a.Errors > 0 {
		wrong("the kernel failed %d writes, the last with: %s", a.Errors, a.LastError)
	}
	return errs
}

func clockContinuity(b, a ClockStatus, maxJump time.Duration) (errs []error) {
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if a.MonoNs < b.MonoNs || a.TSC < b.TSC || a.StealNs < b.StealNs || a.Samples < b.Samples {
		wrong("clocks ran backwards: monotonic %d, TSC %d, steal %d ns and later %d, %d, %d",
			b.MonoNs, b.TSC, b.StealNs, a.MonoNs, a.TSC, a.StealNs)
	}
	if a.BootIDChanges > 0 {
		wrong("the boot id changed %d times while the guest ran", a.BootIDChanges)
	}
	if a.Anomalies < b.Anomalies {
		wrong("the clock watcher had seen %d anomalies and has seen %d", b.Anomalies, a.Anomalies)
		return errs
	}
	fresh := a.Anomalies - b.Anomalies
	if a.Backward != b.Backward {
		wrong("%d clock steps backwards, and %d before", a.Backward, b.Backward)
	}
	// Of those that the guest did not keep the largest is known, no more.
	if kept := uint64(len(a.Recent)); fresh > kept {
		if time.Duration(a.WorstNs) > maxJump {
			wrong("%d new clock anomalies, of which the guest kept only %d; the largest ever was %v",
				fresh, kept, time.Duration(a.WorstNs))
		}
		fresh = kept
	}
	for _, s := range a.Recent[uint64(len(a.Recent))-fresh:] {
		switch {
		case s.What == MonoBack || s.What == TSCBack || s.What == StealBack:
			wrong("%s: a step of %v backwards at %v of the guest's time", s.What, time.Duration(s.SizeNs), time.Duration(s.AtNs))
		case time.Duration(s.SizeNs) > maxJump:
			wrong("%s: a jump of %v at %v of the guest's time, allowed are %v", s.What, time.Duration(s.SizeNs), time.Duration(s.AtNs), maxJump)
		}
	}
	return errs
}
