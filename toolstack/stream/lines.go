// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"math/bits"

	"github.com/kemari-ft/kemari/xen/abi"
)

// LineSize is the size of a line, in octets: what a guest changes in a page is
// seldom more than a few cache lines, and of each a few words.
const LineSize, wordSize = 64, 8

// MaxLines is the largest number of lines sent of a page: of more, all of it is.
const MaxLines = abi.PageSize / LineSize / 2

// maxLine is the longest that is sent of a line: which words, and all of them.
const maxLine = 1 + LineSize

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

// Diff makes copied what page is now, and returns in which lines it was not, and
// appended to data what Patch needs to do the same to another copy: of each line an
// octet with a bit for each word that has changed, and these words.  Of more lines than
// MaxLines data is of no use.
//
// What it does not return it has not changed, whoever writes to the page meanwhile.
//
// All of this is what a real processor waits for memory, whatever it compares with.
// An emulated one takes four times as long for the vectors of bytes.Equal.
func Diff(data, copied, page []byte) (LineSet, []byte) {
	var set LineSet
	for off, n := 0, 0; off < abi.PageSize; off += LineSize {
		was, is := copied[off:off+LineSize:off+LineSize], page[off:off+LineSize:off+LineSize]
		differ := le.Uint64(was) ^ le.Uint64(is)
		differ |= le.Uint64(was[8:]) ^ le.Uint64(is[8:])
		differ |= le.Uint64(was[16:]) ^ le.Uint64(is[16:])
		differ |= le.Uint64(was[24:]) ^ le.Uint64(is[24:])
		differ |= le.Uint64(was[32:]) ^ le.Uint64(is[32:])
		differ |= le.Uint64(was[40:]) ^ le.Uint64(is[40:])
		differ |= le.Uint64(was[48:]) ^ le.Uint64(is[48:])
		differ |= le.Uint64(was[56:]) ^ le.Uint64(is[56:])
		if differ == 0 {
			continue
		}
		if n++; n > MaxLines {
			copy(was, is)
			set |= 1 << (off / LineSize)
			continue
		}
		at := len(data)
		data = append(data, 0)
		for i := 0; i < LineSize; i += wordSize {
			if word := le.Uint64(is[i:]); word != le.Uint64(was[i:]) {
				le.PutUint64(was[i:], word)
				data[at] |= 1 << (i / wordSize)
				data = le.AppendUint64(data, word)
			}
		}
		if data[at] == 0 { // it is as it was again
			data, n = data[:at], n-1
			continue
		}
		set |= 1 << (off / LineSize)
	}
	return set, data
}

// Patch writes the words of data, which is of the lines of the set, to page.
func (s LineSet) Patch(page, data []byte) {
	s.each(func(off int) {
		words := data[0]
		for data = data[1:]; words != 0; words &= words - 1 {
			at := off + bits.TrailingZeros8(words)*wordSize
			copy(page[at:at+wordSize], data)
			data = data[wordSize:]
		}
	})
}

// span returns how long that is with which data begins, if it is of the lines of the
// set; false if it is not all there, or has nothing of one of them.
func (s LineSet) span(data []byte) (n int, ok bool) {
	for range s.Len() {
		if n >= len(data) || data[n] == 0 {
			return 0, false
		}
		n += 1 + bits.OnesCount8(data[n])*wordSize
	}
	return n, n <= len(data)
}

// Lines adds a page of which only the lines in set have changed since the epoch
// before; data is that of Diff, and is copied.
func (w *Writer) Lines(gfn abi.GFN, set LineSet, data []byte) error {
	if !w.open || w.full {
		return sequencef("lines of page %#x outside of a staged epoch", gfn)
	}
	if err := set.check(gfn); err != nil {
		return err
	}
	if n, ok := set.span(data); !ok || n != len(data) {
		return corruptf("%d lines of page %#x in %d octets", set.Len(), gfn, len(data))
	}
	w.lineGFNs = le.AppendUint64(le.AppendUint64(w.lineGFNs, uint64(gfn)), uint64(set))
	w.lines = append(w.lines, data...)
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
	gfn     abi.GFN
	set     LineSet
	at, end int // where they are in Epoch.lines
}

// Patches returns the number of pages of which the epoch has some lines.
func (e *Epoch) Patches() int { return len(e.changed) }

// Lines returns the gfn of one of them, which lines, and what Patch needs, valid
// until Release.  All else of the page is as the epoch before left it.
func (e *Epoch) Lines(i int) (abi.GFN, LineSet, []byte) {
	c := e.changed[i]
	return c.gfn, c.set, e.lines[c.at:c.end]
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
		c := changed{abi.GFN(le.Uint64(entries)), LineSet(le.Uint64(entries[8:])), at, at}
		if err := c.set.check(c.gfn); err != nil {
			return err
		}
		if err := r.name(c.gfn); err != nil {
			return err
		}
		n, ok := c.set.span(e.lines[at:])
		if !ok {
			return corruptf("%d lines of page %#x in %d octets", c.set.Len(), c.gfn, len(e.lines)-at)
		}
		at += n
		c.end = at
		e.changed = append(e.changed, c)
	}
	if at != len(e.lines) {
		return corruptf("%d octets after the last of the lines", len(e.lines)-at)
	}
	return nil
}
