// SPDX-License-Identifier: Apache-2.0

package check

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// Report is what a disk, read from outside of the guest, says about a status.
type Report struct {
	Checked    uint64 // acknowledged records looked for
	Missing    []uint64
	Torn       []uint64
	Altered    []uint64
	WrongSum   []uint64 // whole, but not the record that was acknowledged beyond the digest
	DigestBad  bool     // all whole, yet not those whose sums the guest remembers
	LaterWhole uint64   // written, acknowledgement not (yet) in the status
	LaterTorn  []uint64 // written in part, not acknowledged: harmless unless the guest has stopped writing
	Highest    uint64   // highest whole record
}

// Err is nil when every acknowledged record is on the disk as it was written.
func (r Report) Err() error {
	var errs []error
	for _, f := range []struct {
		what string
		seqs []uint64
	}{
		{"missing", r.Missing}, {"torn", r.Torn}, {"altered", r.Altered}, {"not the acknowledged ones", r.WrongSum},
	} {
		if len(f.seqs) > 0 {
			errs = append(errs, fmt.Errorf("%d of %d acknowledged records are %s: %s", len(f.seqs), r.Checked, f.what, some(f.seqs)))
		}
	}
	if r.DigestBad {
		errs = append(errs, fmt.Errorf("the %d acknowledged records are whole, but are not the ones whose sums the guest remembers", r.Checked))
	}
	return errors.Join(errs...)
}

func some(seqs []uint64) string {
	const most = 8
	words := make([]string, 0, most+1)
	for i, s := range seqs {
		if i == most {
			words = append(words, "...")
			break
		}
		words = append(words, fmt.Sprint(s))
	}
	return strings.Join(words, " ")
}

// lookahead is how many absent records end the search for later ones: more
// than the guest ever has in flight.
const lookahead = 256

// Disk looks for every record that s claims, then for what was written after.
// The disk may be newer than the status, not older.
func Disk(r io.ReaderAt, s Status) (Report, error) {
	var rep Report
	if s.Disk == nil {
		return rep, errors.New("the guest had no disk to write to")
	}
	if err := s.valid(); err != nil {
		return rep, err
	}
	boot, err := ParseBootID(s.BootID)
	if err != nil {
		return rep, err
	}
	d := diskReader{r: r, boot: boot}
	var digest Digest
	for seq := uint64(1); seq <= s.Disk.AckedThrough; seq++ {
		state, sum, err := d.judge(seq)
		if err != nil {
			return rep, err
		}
		rep.note(seq, state)
		digest.Add(seq, sum)
	}
	rep.DigestBad = len(rep.Missing)+len(rep.Torn)+len(rep.Altered) == 0 && digest != s.Disk.Digest

	beyond := make(map[uint64]Sum, len(s.Disk.Beyond))
	for _, b := range s.Disk.Beyond {
		beyond[b.Seq] = b.Sum
	}
	absent := 0
	capacity := Capacity(s.Disk.Size)
	for seq := s.Disk.AckedThrough + 1; seq <= capacity && (absent < lookahead || seq <= s.Disk.Issued); seq++ {
		state, sum, err := d.judge(seq)
		if err != nil {
			return rep, err
		}
		if want, acked := beyond[seq]; acked {
			rep.note(seq, state)
			if state == Whole && sum != want {
				rep.WrongSum = append(rep.WrongSum, seq)
			}
			continue
		}
		switch state {
		case Whole:
			absent = 0
			rep.LaterWhole++
			rep.Highest = seq
		case Missing:
			absent++
		default:
			absent = 0
			rep.LaterTorn = append(rep.LaterTorn, seq)
		}
	}
	return rep, nil
}

// note files an acknowledged record.
func (r *Report) note(seq uint64, state State) {
	r.Checked++
	switch state {
	case Whole:
		r.Highest = max(r.Highest, seq)
	case Missing:
		r.Missing = append(r.Missing, seq)
	case Torn:
		r.Torn = append(r.Torn, seq)
	case Altered:
		r.Altered = append(r.Altered, seq)
	}
}

// diskReader reads a group at a time.
type diskReader struct {
	r     io.ReaderAt
	boot  BootID
	group [GroupSize]byte
	at    int64 // offset of group, meaningful with valid
	valid bool
}

func (d *diskReader) judge(seq uint64) (State, Sum, error) {
	off := Offset(seq)
	start := off - off%GroupSize
	if !d.valid || start != d.at {
		n, err := d.r.ReadAt(d.group[:], start)
		// A sparse image may end before the disk does: what is not there is blank.
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, 0, fmt.Errorf("read record %d at offset %d of the disk: %w", seq, off, err)
		}
		clear(d.group[n:])
		d.at, d.valid = start, true
	}
	state, sum := Judge(d.group[off-start:], d.boot, seq)
	return state, sum, nil
}
