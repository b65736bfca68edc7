// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"math/bits"

	"github.com/kemari-ft/kemari/xen/abi"
)

// LineSize is the size of a line, in octets: what a guest changes in a page is
// seldom more than a few cache lines.
const LineSize = 64

// MaxLines is the largest number of lines sent of a page: of more, all of it is.
const MaxLines = abi.PageSize / LineSize / 2

// LineSet is a set of lines of one page: bit n stands for the octets from
// n * LineSize on.
type LineSet uint64

// Len returns how many lines are in the set.
func (s LineSet) Len() int { return bits.OnesCount64(uint64(s)) }

// each calls f with the offset in the page of every line of the set, in order.
func (s LineSet) each(f func(off int)) {
	for ; s != 0; s &= s - 1 {
		f(bits.TrailingZeros64(uint64(s)) * LineSize)
	}
}

func (s LineSet) check(gfn abi.GFN) error {
	if n := s.Len(); n == 0 || n > MaxLines {
		return corruptf("%d lines of page %#x, 1 to %d allowed", n, gfn, MaxLines)
	}
	return nil
}

// Patch writes the lines of the set, which follow each other in data, to page.
func (s LineSet) Patch(page, data []byte) {
	s.each(func(off int) {
		copy(page[off:off+LineSize], data)
		data = data[LineSize:]
	})
}

// Gather appends the lines of the set, as they are in page, to b.
func (s LineSet) Gather(b, page []byte) []byte {
	s.each(func(off int) { b = append(b, page[off:off+LineSize]...) })
	return b
}

// Lines adds a page of which only the lines in set have changed since the epoch
// before.  What page holds there is copied.
func (w *Writer) Lines(gfn abi.GFN, set LineSet, page []byte) error {
	switch {
	case len(page) != abi.PageSize:
		return corruptf("page of %d octets", len(page))
	case !w.open || w.full:
		return sequencef("lines of page %#x outside of a staged epoch", gfn)
	}
	if err := set.check(gfn); err != nil {
		return err
	}
	w.lineGFNs = le.AppendUint64(le.AppendUint64(w.lineGFNs, uint64(gfn)), uint64(set))
	w.lines = set.Gather(w.lines, page)
	if len(w.lineGFNs) == MaxBatch*lineLen {
		return w.sendLines()
	}
	return nil
}

func (w *Writer) sendLines() error {
	n := uint64(len(w.lineGFNs) / lineLen)
	if n == 0 {
		return nil
	}
	w.sum.lines += n
	err := w.build(TypeLines, func(b []byte) ([]byte, error) {
		return append(append(le.AppendUint64(b, n), w.lineGFNs...), w.lines...), nil
	})
	w.lineGFNs, w.lines = w.lineGFNs[:0], w.lines[:0]
	return err
}

// changed is a page of which an epoch has some lines.
type changed struct {
	gfn abi.GFN
	set LineSet
	at  int // where they begin in Epoch.lines
}

// Patches returns the number of pages of which the epoch has some lines.
func (e *Epoch) Patches() int { return len(e.changed) }

// Lines returns the gfn of one of them, which lines, and their contents, valid
// until Release.  All else of the page is as the epoch before left it.
func (e *Epoch) Lines(i int) (abi.GFN, LineSet, []byte) {
	c := e.changed[i]
	return c.gfn, c.set, e.lines[c.at:][:c.set.Len()*LineSize]
}

// lines takes a LINES record.
func (r *Reader) lines(b []byte) error {
	n := le.Uint64(b)
	if n > MaxBatch || listLen+int(n)*lineLen > len(b) {
		return corruptf("lines of %d pages in a body of %d octets", n, len(b))
	}
	e := r.current
	if e.Full {
		return sequencef("LINES in the first epoch")
	}
	r.sum.lines += n
	if err := r.bounded(); err != nil {
		return err
	}
	entries, data := b[listLen:listLen+int(n)*lineLen], b[listLen+int(n)*lineLen:]
	at := len(e.lines)
	e.lines = append(e.lines, data...)
	for ; len(entries) > 0; entries = entries[lineLen:] {
		c := changed{abi.GFN(le.Uint64(entries)), LineSet(le.Uint64(entries[8:])), at}
		if err := c.set.check(c.gfn); err != nil {
			return err
		}
		if err := r.name(c.gfn); err != nil {
			return err
		}
		at += c.set.Len() * LineSize
		e.changed = append(e.changed, c)
	}
	if at != len(e.lines) {
		return corruptf("%d octets of lines, %d announced", len(data), len(data)+at-len(e.lines))
	}
	return nil
}
