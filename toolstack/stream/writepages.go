// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"hash/crc32"

	"github.com/kemari-ft/kemari/xen/abi"
)

// pagesHead is the room for everything before the data of a full PAGES record.
const pagesHead = recHeaderLen + listLen + MaxBatch*8

// Page adds one page.  A page of zeros travels as its gfn.
func (w *Writer) Page(gfn abi.GFN, page []byte) error {
	if len(page) != abi.PageSize {
		return corruptf("page of %d octets", len(page))
	}
	if w.batch == nil {
		w.batch = make([]byte, pagesHead+MaxBatch*abi.PageSize)
	}
	if w.full || !w.vectored {
		// One copy, of which both the zeros and the checksum are judged: a
		// running guest may write the page meanwhile.
		at := pagesHead + len(w.gfns)*abi.PageSize
		copied := w.batch[at : at+abi.PageSize]
		copy(copied, page)
		page = copied
	}
	if *(*[abi.PageSize]byte)(page) == zeroPage {
		w.zeros = append(w.zeros, gfn)
		if len(w.zeros) == MaxList {
			return w.Flush()
		}
		return nil
	}
	w.gfns = append(w.gfns, gfn)
	w.pages = append(w.pages, page)
	if len(w.gfns) == MaxBatch {
		return w.Flush()
	}
	return nil
}

var zeroPage [abi.PageSize]byte

// Hole says that there is no page at gfn any more.
func (w *Writer) Hole(gfn abi.GFN) error {
	w.holes = append(w.holes, gfn)
	if len(w.holes) == MaxList {
		return w.Flush()
	}
	return nil
}

// Flush sends what Page, Lines and Hole have gathered.  Between two calls a gfn may be
// named once only: the copy of a running guest comes in rounds, and each ends
// with a Flush.  End calls it too.
func (w *Writer) Flush() error {
	if err := w.sendPages(); err != nil {
		return err
	}
	if err := w.sendLines(); err != nil {
		return err
	}
	if err := w.list(TypeZeros, &w.zeros, &w.sum.zeros); err != nil {
		return err
	}
	return w.list(TypeHoles, &w.holes, &w.sum.holes)
}

func (w *Writer) sendPages() error {
	n := len(w.gfns)
	if n == 0 {
		return nil
	}
	length := listLen + n*8 + n*abi.PageSize
	head := w.batch[pagesHead-recHeaderLen-listLen-n*8 : pagesHead]
	putList(head, TypePages, length, w.gfns)
	w.sum.pages += uint64(n)
	w.sum.records++
	w.octets += uint64(recHeaderLen + length)
	w.sum.crc = crc32.Update(w.sum.crc, castagnoli, head)
	for _, p := range w.pages {
		w.sum.crc = crc32.Update(w.sum.crc, castagnoli, p)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.full || !w.vectored {
		w.write(w.batch[pagesHead-len(head) : pagesHead+n*abi.PageSize])
	} else {
		w.writev(head)
	}
	w.gfns, w.pages = w.gfns[:0], w.pages[:0]
	return w.err
}

// list sends ZEROS or HOLES.
func (w *Writer) list(t RecordType, gfns *[]abi.GFN, count *uint64) error {
	n := len(*gfns)
	if n == 0 {
		return nil
	}
	w.head = append(w.head[:0], make([]byte, recHeaderLen+listLen+n*8)...)
	putList(w.head, t, listLen+n*8, *gfns)
	*count += uint64(n)
	*gfns = (*gfns)[:0]
	return w.emit()
}

func putList(b []byte, t RecordType, length int, gfns []abi.GFN) {
	le.PutUint32(b, uint32(t))
	le.PutUint32(b[4:], uint32(length))
	le.PutUint64(b[8:], uint64(len(gfns)))
	for i, g := range gfns {
		le.PutUint64(b[16+i*8:], uint64(g))
	}
}

func (w *Writer) writev(head []byte) {
	if w.err != nil {
		return
	}
	w.out = append(append(w.out[:0], head), w.pages...)
	all := w.out // WriteTo consumes w.out; keep its memory
	_, w.err = w.out.WriteTo(w.w)
	clear(all)
	w.out = all
}
