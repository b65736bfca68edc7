// SPDX-License-Identifier: Apache-2.0

package check

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// Tick is the line the guest prints at every tick.
type Tick struct {
	N       uint64
	Link    uint64
	Short   string // first 16 hexadecimal digits of the link
	MonoNs  int64
	TSC     uint64
	StealNs int64
	Acked   uint64 // records 1..Acked are on the disk
}

// String is the line itself; ParseTick reads it back.
func (t Tick) String() string {
	return fmt.Sprintf("tick %d link=%d chain=%s mono=%d tsc=%d steal=%d acked=%d .",
		t.N, t.Link, t.Short, t.MonoNs, t.TSC, t.StealNs, t.Acked)
}

// ParseTick reads a console line. It answers false for any other line, a tick
// cut short by a power cut (the final dot is missing) among them.
func ParseTick(line string) (Tick, bool) {
	var t Tick
	line = strings.TrimRight(line, "\r\n")
	if !strings.HasPrefix(line, "tick ") || len(line) > 512 {
		return t, false
	}
	_, err := fmt.Sscanf(line, "tick %d link=%d chain=%16s mono=%d tsc=%d steal=%d acked=%d .",
		&t.N, &t.Link, &t.Short, &t.MonoNs, &t.TSC, &t.StealNs, &t.Acked)
	if _, bad := hex.DecodeString(t.Short); err != nil || bad != nil || len(t.Short) != 16 {
		return Tick{}, false
	}
	// Scanning is lenient about spaces and signs; a tick is what the guest prints.
	return t, t.String() == line
}

// ParseStatus reads a console line; false means that it is another line.
func ParseStatus(line string) (Status, bool, error) {
	var s Status
	rest, ok := strings.CutPrefix(strings.TrimRight(line, "\r\n"), "status ")
	if !ok {
		return s, false, nil
	}
	if err := parseJSON("status", rest, &s); err != nil {
		return Status{}, true, err
	}
	return s, true, s.valid()
}

// ParseVerify reads a console line; false means that it is another line.
func ParseVerify(line string) (Verify, bool, error) {
	var v Verify
	rest, ok := strings.CutPrefix(strings.TrimRight(line, "\r\n"), "verify ")
	if !ok {
		return v, false, nil
	}
	return v, true, parseJSON("verify", rest, &v)
}

func (s Status) valid() error {
	if _, err := ParseBootID(s.BootID); err != nil {
		return fmt.Errorf("guest's status line: %w", err)
	}
	d := s.Disk
	if d == nil {
		return nil
	}
	if most := Capacity(d.Size); d.AckedThrough > d.Issued || d.Issued > most {
		return fmt.Errorf("guest's status line: records acknowledged through %d, issued %d, room for %d",
			d.AckedThrough, d.Issued, most)
	}
	if d.Acked != d.AckedThrough+uint64(len(d.Beyond)) {
		return fmt.Errorf("guest's status line: %d records acknowledged, but 1..%d and %d beyond are named",
			d.Acked, d.AckedThrough, len(d.Beyond))
	}
	last := d.AckedThrough + 1 // AckedThrough+1 itself cannot be among Beyond
	for _, b := range d.Beyond {
		if b.Seq <= last || b.Seq > d.Issued {
			return fmt.Errorf("guest's status line: record %d acknowledged beyond %d of %d issued", b.Seq, last, d.Issued)
		}
		last = b.Seq
	}
	return nil
}

// TickReport is what a console log, or two hosts' logs one after the other, say.
type TickReport struct {
	Ticks   int
	Rewinds int // the tick number fell back: output of an uncommitted epoch, printed again
	Skipped uint64
}

// Ticks judges the ticks of one boot in the order they were printed. Ticks may
// be printed twice, because console output is not held back until its epoch is
// committed; but the same link must then carry the same hash. Every hash is
// compared with a recomputation from the seed.
func Ticks(bootID string, slots int, ticks []Tick) (TickReport, error) {
	r := TickReport{Ticks: len(ticks)}
	links := make([]uint64, len(ticks))
	for i, t := range ticks {
		links[i] = t.Link
		if i == 0 {
			continue
		}
		last := ticks[i-1]
		switch {
		case t.N <= last.N:
			r.Rewinds++
			continue // time goes back with the guest's memory: not a fault of its clock
		case t.N > last.N+1:
			r.Skipped += t.N - last.N - 1
		}
		if t.Link < last.Link || t.MonoNs < last.MonoNs || t.TSC < last.TSC || t.StealNs < last.StealNs || t.Acked < last.Acked {
			return r, fmt.Errorf("tick %d went backwards from tick %d: %q after %q", t.N, last.N, t, last)
		}
	}
	want, err := chainAt(bootID, slots, links)
	if err != nil {
		return r, err
	}
	for _, t := range ticks {
		if w := want[t.Link]; hex.EncodeToString(w[:8]) != t.Short {
			return r, fmt.Errorf("tick %d: link %d is %s, the chain from the seed has %x", t.N, t.Link, t.Short, w[:8])
		}
	}
	return r, nil
}
