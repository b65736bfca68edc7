// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"math/bits"
)

// epoch is the epoch being read, section 6.
type epoch struct {
	number              uint64
	full                bool
	start               int64
	sum                 uint32
	records             uint32
	pages, zeros, holes uint64
	changed             uint64          // pages in LINES
	named               map[uint64]bool // gfns in PAGES, ZEROS, HOLES, LINES
	images              map[uint64]image
	contents            int
	nrRings, stateLen   int
	seen                map[uint32]bool // of ALWAYS, STATE, RINGS, XENSTORE
}

// cover adds a record to the checksum: all of it but the checksum itself.
func (e *epoch) cover(r record) {
	raw := r.raw
	if r.kind == 0x0b {
		raw = raw[:len(raw)-4]
	}
	e.sum = crc(e.sum, raw)
	e.records++
}

func (v *verifier) begin(r record) error {
	generation, number, flags := u64(r.body, 0), u64(r.body, 8), u64(r.body, 16)
	full := flags == 1
	switch {
	case flags > 1:
		return fmt.Errorf("flags and reserved field are %#x", flags)
	case generation != v.generation:
		return fmt.Errorf("generation %d, HELLO said %d", generation, v.generation)
	case full != (number == 1):
		return fmt.Errorf("epoch %d, full is %v", number, full)
	case v.shelled && v.lastEpoch == 0 && number != 1:
		return fmt.Errorf("epoch %d follows SHELL", number)
	case !v.shelled && number < 2:
		return fmt.Errorf("epoch %d without SHELL", number)
	case v.lastEpoch != 0 && number != v.lastEpoch+1:
		return fmt.Errorf("epoch %d follows epoch %d", number, v.lastEpoch)
	}
	v.epoch = &epoch{number: number, full: full, start: v.offset - int64(len(r.raw)),
		named: map[uint64]bool{}, images: map[uint64]image{}, seen: map[uint32]bool{}}
	v.epoch.cover(r)
	return nil
}

// list reads a count, a reserved field and as many gfns.
func (v *verifier) list(r record, tail int) (uint64, error) {
	n := u64(r.body, 0)
	if n > 65536 || uint64(len(r.body)) != 8+n*uint64(8+tail) {
		return 0, fmt.Errorf("count and reserved field are %#x, the body has %d octets", n, len(r.body))
	}
	for i := range int(n) {
		if err := v.name(u64(r.body, 8+i*8)); err != nil {
			return 0, err
		}
	}
	return n, v.bounded()
}

func (v *verifier) name(gfn uint64) error {
	if v.shelled && gfn > v.maxGFN {
		return fmt.Errorf("gfn %#x, SHELL said %#x at most", gfn, v.maxGFN)
	}
	if !v.epoch.full && v.epoch.named[gfn] {
		return fmt.Errorf("gfn %#x comes twice in epoch %d", gfn, v.epoch.number)
	}
	v.epoch.named[gfn] = true
	return nil
}

func (v *verifier) bounded() error {
	if !v.epoch.full && v.shelled && uint64(len(v.epoch.named)) > v.epochPages {
		return fmt.Errorf("%d gfns in epoch %d, SHELL said %d at most", len(v.epoch.named), v.epoch.number, v.epochPages)
	}
	return nil
}

func (v *verifier) pages(r record) error {
	n, err := v.list(r, 4096)
	v.epoch.pages += n
	return err
}

func (v *verifier) zeros(r record) error {
	n, err := v.list(r, 0)
	v.epoch.zeros += n
	return err
}

func (v *verifier) holes(r record) error {
	n, err := v.list(r, 0)
	v.epoch.holes += n
	return err
}

// lines reads a list of gfns with a bit for each line that follows.
func (v *verifier) lines(r record) error {
	n := u64(r.body, 0)
	if n > 256 || uint64(len(r.body)) < 8+n*16 {
		return fmt.Errorf("count and reserved field are %#x, the body has %d octets", n, len(r.body))
	}
	if v.epoch.full {
		return errors.New("comes in a full epoch")
	}
	want := 8 + int(n)*16
	for i := range int(n) {
		length, err := lineLength(u64(r.body, 8+i*16+8), r.body[want:])
		if err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		want += length
		gfn := u64(r.body, 8+i*16)
		if _, kept := v.images[gfn]; kept {
			return fmt.Errorf("lines of gfn %#x, an always-sent page of the epoch before", gfn)
		}
		if err := v.name(gfn); err != nil {
			return err
		}
	}
	if want != len(r.body) {
		return fmt.Errorf("body of %d octets, expected %d", len(r.body), want)
	}
	v.epoch.changed += n
	return v.bounded()
}

// lineLength returns how many octets of b belong to the lines of a set: for each an
// octet that says which of its words follow, and these.
func lineLength(set uint64, b []byte) (length int, err error) {
	lines := bits.OnesCount64(set)
	if lines == 0 || lines > 32 {
		return 0, fmt.Errorf("%d lines of a page", lines)
	}
	for line := range lines {
		if length >= len(b) || b[length] == 0 {
			return 0, fmt.Errorf("line %d of the set has no words", line)
		}
		length += 1 + 8*bits.OnesCount8(b[length])
	}
	if length > len(b) {
		return 0, fmt.Errorf("the words of its lines take %d octets, there are %d", length, len(b))
	}
	return length, nil
}

// once is for the records of which an epoch has one.
func (e *epoch) once(r record) error {
	if e.seen[r.kind] {
		return fmt.Errorf("comes twice in epoch %d", e.number)
	}
	e.seen[r.kind] = true
	return nil
}

func (v *verifier) always(r record) error {
	n := u64(r.body, 0)
	if n > 4096 || uint64(len(r.body)) < 8+n*16 {
		return fmt.Errorf("count and reserved field are %#x, the body has %d octets", n, len(r.body))
	}
	e := v.epoch
	before, first := uint64(0), true
	want := 8 + int(n)*16 // octets, as far as the entries so far tell
	for i := range int(n) {
		at := 8 + i*16
		kind, flags := le.Uint16(r.body[at:]), le.Uint16(r.body[at+2:])
		gfn, this := u64(r.body, at+8), image{kind, u32(r.body, at+4)}
		if flags > 2 || gfn >= 1<<40 || !first && gfn <= before {
			return fmt.Errorf("entry %d: flags %#x, gfn %#x after %#x", i, flags, gfn, before)
		}
		switch flags {
		case 1:
			want += 4096
		case 2:
			if want+8 > len(r.body) {
				return fmt.Errorf("entry %d: its set of lines is missing", i)
			}
			length, err := lineLength(u64(r.body, want), r.body[want+8:])
			if err != nil {
				return fmt.Errorf("entry %d: %w", i, err)
			}
			want += 8 + length
		}
		if flags != 0 {
			e.contents++
		}
		old, ok := v.images[gfn]
		if flags != 1 && (e.full || ok && old != this || !ok && v.epochs > 0) {
			return fmt.Errorf("entry %d: contents of gfn %#x are missing, the epoch before does not have it", i, gfn)
		}
		e.images[gfn] = this
		before, first = gfn, false
	}
	if want != len(r.body) {
		return fmt.Errorf("body of %d octets, expected %d", len(r.body), want)
	}
	return e.once(r)
}

func (v *verifier) state(r record) error {
	v.epoch.stateLen = len(r.body)
	return v.epoch.once(r)
}

func (v *verifier) xenstore(r record) error { return v.epoch.once(r) }

func (v *verifier) rings(r record) error {
	n := u64(r.body, 0)
	if n > 4096 || uint64(len(r.body)) != 8+n*16 {
		return fmt.Errorf("count and reserved field are %#x, the body has %d octets", n, len(r.body))
	}
	v.epoch.nrRings = int(n)
	return v.epoch.once(r)
}

func (v *verifier) end(r record) error {
	e := v.epoch
	if !e.seen[0x07] || !e.seen[0x08] || !e.seen[0x09] || e.full && !e.seen[0x0a] {
		return errors.New("ALWAYS, STATE or RINGS are missing, or XENSTORE in the first epoch")
	}
	for gfn := range e.images {
		if !e.full && e.named[gfn] {
			return fmt.Errorf("gfn %#x is an always-sent page and an ordinary one", gfn)
		}
	}
	got := []uint64{v.generation, e.number, e.pages, e.zeros, e.holes, e.changed, uint64(e.records)}
	want := []uint64{u64(r.body, 0), u64(r.body, 8), u64(r.body, 16), u64(r.body, 24), u64(r.body, 32), u64(r.body, 40), uint64(u32(r.body, 48))}
	for i, what := range []string{"generation", "epoch", "number of pages", "number of zeros", "number of holes", "number of pages with lines", "number of records"} {
		if got[i] != want[i] {
			return fmt.Errorf("%s is %d, counted %d", what, want[i], got[i])
		}
	}
	if sum := u32(r.body, 52); sum != e.sum {
		return fmt.Errorf("CRC32C is %#08x, computed %#08x", sum, e.sum)
	}
	_, err := fmt.Fprintf(v.out, "epoch %d of generation %d: %d pages, lines of %d, %d zeros, %d holes, %d of %d always-sent pages, %d rings, %d octets of state, %d octets in %d records, CRC32C %#08x\n",
		e.number, v.generation, e.pages, e.changed, e.zeros, e.holes, e.contents, len(e.images), e.nrRings, e.stateLen, v.offset-e.start, e.records, e.sum)
	v.lastEpoch, v.images, v.epoch = e.number, e.images, nil
	v.epochs++
	return err
}
