// SPDX-License-Identifier: Apache-2.0

package check

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// Status is the guest's answer to `status`: one line, "status " and this in JSON.
type Status struct {
	Question string `json:"question,omitempty"` // of whoever asked, to know the answer by
	BootID   string `json:"boot_id"`
	VCPUs    int    `json:"vcpus"`
	Load     string `json:"load"`
	Ticks    uint64 `json:"ticks"`

	Chain  ChainStatus  `json:"chain"`
	Disk   *DiskStatus  `json:"disk,omitempty"` // nil: the guest has no disk
	Memory MemoryStatus `json:"memory"`
	Clocks ClockStatus  `json:"clocks"`
	Gaps   GapStatus    `json:"gaps"`
}

// ChainStatus is the newest link and whether the guest's own recomputation agreed.
type ChainStatus struct {
	Link     uint64 `json:"link"`
	Hash     Hash   `json:"hash"`
	Slots    int    `json:"slots"`
	Verified bool   `json:"verified"`
	BadSlots int    `json:"bad_slots"` // table slots that differ from the recomputed ones
}

// DiskStatus says which records the guest was told are on the disk: all of
// 1..AckedThrough, whose sums Digest covers, and those named in Beyond.
type DiskStatus struct {
	Device       string   `json:"device"`
	Size         int64    `json:"size"`
	Issued       uint64   `json:"issued"` // highest number handed to the kernel
	Acked        uint64   `json:"acked"`  // count
	AckedThrough uint64   `json:"acked_through"`
	Digest       Digest   `json:"digest"`
	Beyond       []Beyond `json:"beyond,omitempty"`
	Synced       uint64   `json:"synced"` // count of those that were fsynced
	SyncedLast   uint64   `json:"synced_last"`
	Errors       uint64   `json:"errors"` // writes or fsyncs the kernel failed
	LastError    string   `json:"last_error,omitempty"`
	Full         bool     `json:"full"` // no place for a further record
}

// Beyond is a record acknowledged out of order.
type Beyond struct {
	Seq uint64 `json:"seq"`
	Sum Sum    `json:"sum"`
}

// MemoryStatus is about the pages that `load mem=` writes: each is read back
// before it is written again.
type MemoryStatus struct {
	Written    uint64 `json:"written"`    // pages
	Mismatches uint64 `json:"mismatches"` // pages that did not hold what was last written
}

// ClockStatus is what the clock watcher saw since boot.
type ClockStatus struct {
	Samples       uint64      `json:"samples"`
	MonoNs        int64       `json:"mono_ns"`
	TSC           uint64      `json:"tsc"`
	TSCHz         uint64      `json:"tsc_hz"`
	StealNs       int64       `json:"steal_ns"` // all vCPUs
	BootIDChanges uint64      `json:"boot_id_changes"`
	Anomalies     uint64      `json:"anomalies"` // all ever seen; Recent holds the last ones
	Backward      uint64      `json:"backward"`  // those of them that were steps backwards
	WorstNs       int64       `json:"worst_ns"`  // largest size of all
	Recent        []ClockStep `json:"recent,omitempty"`
}

// Names of ClockStep.What.
const (
	MonoBack  = "mono_back"  // CLOCK_MONOTONIC stepped backwards
	TSCBack   = "tsc_back"   // RDTSC stepped backwards, on one vCPU or between two
	StealBack = "steal_back" // a vCPU's steal time shrank
	MonoJump  = "mono_jump"  // CLOCK_MONOTONIC advanced more than the watcher's sleep explains
	Skew      = "skew"       // TSC and CLOCK_MONOTONIC advanced by different amounts
	StealJump = "steal_jump" // steal time grew more than CLOCK_MONOTONIC did
)

// ClockStep is one anomaly of the clocks.
type ClockStep struct {
	What   string `json:"what"`
	AtNs   int64  `json:"at_ns"` // CLOCK_MONOTONIC after it
	SizeNs int64  `json:"size_ns"`
}

// GapStatus is the gap meter's histogram since its last reset. A gap is a time
// between two looks at the TSC by a thread that looks every few milliseconds, before
// all others of the guest, and was kept from it.
type GapStatus struct {
	On         bool    `json:"on"`
	VCPU       int     `json:"vcpu"`
	MeasuredUs float64 `json:"measured_us"`
	LeastUs    float64 `json:"least_us"` // what is shorter is no gap
	Gaps       Gaps    `json:"gaps"`
}

// Gaps summarises one histogram, in microseconds.
type Gaps struct {
	Count   uint64  `json:"count"`
	TotalUs float64 `json:"total_us"`
	P50Us   float64 `json:"p50_us"`
	P90Us   float64 `json:"p90_us"`
	P99Us   float64 `json:"p99_us"`
	P999Us  float64 `json:"p999_us"`
	MaxUs   float64 `json:"max_us"`
}

// Verify is the guest's answer to `verify`: the chain recomputed from its seed
// and every acknowledged record read back with O_DIRECT.
type Verify struct {
	Question string      `json:"question,omitempty"`
	OK       bool        `json:"ok"`
	Chain    ChainStatus `json:"chain"`
	Records  uint64      `json:"records"` // read back
	Missing  uint64      `json:"missing"`
	Torn     uint64      `json:"torn"`
	Altered  uint64      `json:"altered"`
	FirstBad uint64      `json:"first_bad,omitempty"`
	Error    string      `json:"error,omitempty"` // the disk could not be read
}

func (h Hash) MarshalText() ([]byte, error)    { return hex.AppendEncode(nil, h[:]), nil }
func (h *Hash) UnmarshalText(b []byte) error   { return unhex(h[:], b) }
func (d Digest) MarshalText() ([]byte, error)  { return Hash(d).MarshalText() }
func (d *Digest) UnmarshalText(b []byte) error { return unhex(d[:], b) }

// A Sum travels as hexadecimal text: JSON readers outside of Go lose the low
// bits of a 64-bit number.
func (s Sum) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%016x", uint64(s)), nil }

func (s *Sum) UnmarshalText(b []byte) error {
	var raw [8]byte
	if err := unhex(raw[:], b); err != nil {
		return err
	}
	*s = 0
	for _, v := range raw {
		*s = *s<<8 | Sum(v)
	}
	return nil
}

func unhex(dst, src []byte) error {
	if len(src) != hex.EncodedLen(len(dst)) {
		return fmt.Errorf("%d hexadecimal digits where %d belong", len(src), hex.EncodedLen(len(dst)))
	}
	_, err := hex.Decode(dst, src)
	return err
}

// maxLine is far above the longest line the guest prints.
const maxLine = 64 << 10

func parseJSON(prefix, line string, into any) error {
	if len(line) > maxLine {
		return fmt.Errorf("guest's %s line: %d bytes long", prefix, len(line))
	}
	d := json.NewDecoder(bytes.NewReader([]byte(line)))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("guest's %s line: %w", prefix, err)
	}
	if d.More() {
		return fmt.Errorf("guest's %s line: something follows the JSON", prefix)
	}
	return nil
}
