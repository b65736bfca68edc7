// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"sync"

	"github.com/kemari-ft/kemari/xen/abi"
)

// Writer writes one direction of a stream.  Heartbeat may be called at any
// time; all other methods belong to one goroutine.
type Writer struct {
	mu sync.Mutex // one record at a time; protects w, cork, corked, err, and started
	w  io.Writer
	// cork is w, if that can gather the records of an epoch.
	cork   Corker
	corked bool
	err    error
	// started is set once the stream header has been written.
	started bool

	vectored bool   // w takes many slices in one system call
	head     []byte // records other than PAGES are built here
	zero     [8]byte

	// The open epoch.
	open       bool
	full       bool
	generation uint64
	epoch      uint64
	sum        tally
	octets     uint64

	gfns  []abi.GFN // the batch: gfns of its pages
	batch []byte    // pagesHead octets, then the copied pages; made when needed
	pages [][]byte  // or the pages themselves
	out   net.Buffers
	zeros []abi.GFN
	holes []abi.GFN
	// Pages of which lines are sent: what LINES says of them, and the lines.
	lineGFNs, lines []byte
}

// tally is what EPOCH_END says about its epoch.
type tally struct {
	pages, zeros, holes, lines uint64
	records                    uint32
	crc                        uint32
}

// Sent says what an epoch came to.
type Sent struct {
	Pages, Zeros, Holes uint64
	Lines               uint64 // pages of which some lines were sent
	Octets              uint64
}

// A Corker gathers what is written to it after Cork until Flush, or until it
// has enough, and then writes all of it.
type Corker interface {
	Cork()
	Flush() error
}

// NewWriter makes a writer.  The stream header precedes the first record.  If w
// is a Corker, the records of an epoch are gathered.
func NewWriter(w io.Writer) *Writer {
	wr := &Writer{w: w}
	wr.cork, _ = w.(Corker)
	switch w.(type) {
	case *net.TCPConn, *net.UnixConn: // those for which net.Buffers is one writev
		wr.vectored = true
	}
	return wr
}

// Hello sends HELLO.
func (w *Writer) Hello(h Hello) error {
	return w.build(TypeHello, func(b []byte) ([]byte, error) { return appendHello(b, &h) })
}

// Shell sends SHELL.
func (w *Writer) Shell(s Shell) error {
	return w.build(TypeShell, func(b []byte) ([]byte, error) { return appendShell(b, &s) })
}

// Refuse sends REFUSE.  Characters that cannot be shown are replaced.
func (w *Writer) Refuse(r Refuse) error {
	return w.build(TypeRefuse, func(b []byte) ([]byte, error) { return appendRefuse(b, &r) })
}

// Ack sends ACK.
func (w *Writer) Ack(generation, epoch uint64) error {
	return w.words(TypeAck, generation, epoch)
}

// Discard sends DISCARD.
func (w *Writer) Discard(generation uint64) error { return w.words(TypeDiscard, generation) }

// Discarded sends DISCARDED.
func (w *Writer) Discarded(generation uint64) error { return w.words(TypeDiscarded, generation) }

// LetGo sends LET_GO.
func (w *Writer) LetGo(generation, epoch uint64) error {
	return w.words(TypeLetGo, generation, epoch)
}

// EndGuest sends END.
func (w *Writer) EndGuest(generation uint64, why Reason) error {
	return w.words(TypeEnd, generation, uint64(why))
}

// Heartbeat sends HEARTBEAT, also between two records of an epoch, and with it
// what was gathered of that: it must not wait for pages.
func (w *Writer) Heartbeat(generation, sequence uint64) error {
	var b [recHeaderLen + twoWordsLen]byte
	le.PutUint32(b[0:], uint32(TypeHeartbeat))
	le.PutUint32(b[4:], twoWordsLen)
	le.PutUint64(b[8:], generation)
	le.PutUint64(b[16:], sequence)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.write(b[:])
	w.flush()
	if w.corked {
		w.cork.Cork()
	}
	return w.err
}

// Begin opens an epoch.  The pages of a full epoch may change while they are
// sent; those of another one must not change before End has returned.
func (w *Writer) Begin(generation, epoch uint64, full bool) error {
	if w.open {
		return sequencef("EPOCH_BEGIN %d while epoch %d is open", epoch, w.epoch)
	}
	w.open, w.full, w.generation, w.epoch = true, full, generation, epoch
	w.sum, w.octets = tally{}, 0
	w.gather()
	var flags uint64
	if full {
		flags = beginFull
	}
	return w.words(TypeEpochBegin, generation, epoch, flags)
}

// Always sends ALWAYS: all always-sent pages, by ascending gfn, those that did
// not change since the epoch before without Data.
func (w *Writer) Always(pages []AlwaysPage) error {
	return w.build(TypeAlways, func(b []byte) ([]byte, error) {
		if len(pages) > MaxAlways {
			return nil, limitf("%d always-sent pages, at most %d", len(pages), MaxAlways)
		}
		b = le.AppendUint64(b, uint64(len(pages)))
		for i, p := range pages {
			if i > 0 && pages[i-1].GFN >= p.GFN {
				return nil, sequencef("always-sent page %#x after %#x", p.GFN, pages[i-1].GFN)
			}
			var flags uint16
			switch {
			case p.Lines != 0:
				flags = alwaysLines
			case p.Data != nil:
				flags = alwaysHasImg
			}
			b = le.AppendUint16(b, uint16(p.Kind))
			b = le.AppendUint16(b, flags)
			b = le.AppendUint32(b, p.Index)
			b = le.AppendUint64(b, uint64(p.GFN))
		}
		for _, p := range pages {
			if p.Lines != 0 {
				b = le.AppendUint64(b, uint64(p.Lines))
			}
			n, ok := p.span(p.Data)
			if (p.Data != nil || p.Lines != 0) && (!ok || n != len(p.Data)) || p.Lines.Len() > MaxLines {
				return nil, corruptf("always-sent page of %d octets, %d lines", len(p.Data), p.Lines.Len())
			}
			b = append(b, p.Data...)
		}
		return b, nil
	})
}

// State sends STATE.
func (w *Writer) State(state []byte) error { return w.blob(TypeState, state, MaxState) }

// Xenstore sends XENSTORE, which may be left out if nothing has changed.
func (w *Writer) Xenstore(nodes []byte) error { return w.blob(TypeXenstore, nodes, MaxXenstore) }

func (w *Writer) blob(t RecordType, data []byte, most int) error {
	return w.build(t, func(b []byte) ([]byte, error) {
		if len(data) > most {
			return nil, limitf("%v of %d octets, at most %d", t, len(data), most)
		}
		return append(b, data...), nil
	})
}

// Rings sends RINGS.
func (w *Writer) Rings(rings []Ring) error {
	return w.build(TypeRings, func(b []byte) ([]byte, error) {
		if len(rings) > MaxRings {
			return nil, limitf("%d rings, at most %d", len(rings), MaxRings)
		}
		b = le.AppendUint64(b, uint64(len(rings)))
		for _, r := range rings {
			b = le.AppendUint16(b, r.Class)
			b = le.AppendUint16(b, r.Queue)
			b = le.AppendUint32(b, r.DevID)
			b = le.AppendUint32(b, r.RspProd)
			b = le.AppendUint32(b, r.ReqProd)
		}
		return b, nil
	})
}

// End closes the epoch.
func (w *Writer) End() (Sent, error) {
	if !w.open {
		return Sent{}, sequencef("EPOCH_END without an open epoch")
	}
	if err := w.Flush(); err != nil {
		return Sent{}, err
	}
	w.sum.records++
	b := w.start(TypeEpochEnd)
	b = le.AppendUint64(b, w.generation)
	b = le.AppendUint64(b, w.epoch)
	b = le.AppendUint64(b, w.sum.pages)
	b = le.AppendUint64(b, w.sum.zeros)
	b = le.AppendUint64(b, w.sum.holes)
	b = le.AppendUint64(b, w.sum.lines)
	b = le.AppendUint32(b, w.sum.records)
	le.PutUint32(b[4:], epochEndLen)
	w.sum.crc = crc32.Update(w.sum.crc, castagnoli, b)
	w.head = le.AppendUint32(b, w.sum.crc)
	w.octets += uint64(len(w.head))
	w.open = false
	w.mu.Lock()
	defer w.mu.Unlock()
	w.write(w.head)
	w.corked = false
	w.flush()
	return Sent{Pages: w.sum.pages, Zeros: w.sum.zeros, Holes: w.sum.holes, Lines: w.sum.lines, Octets: w.octets}, w.err
}

func (w *Writer) start(t RecordType) []byte {
	return le.AppendUint64(w.head[:0], uint64(t))
}

func (w *Writer) words(t RecordType, words ...uint64) error {
	return w.build(t, func(b []byte) ([]byte, error) {
		for _, v := range words {
			b = le.AppendUint64(b, v)
		}
		return b, nil
	})
}

// build makes one record of what body appends and sends it.
func (w *Writer) build(t RecordType, body func([]byte) ([]byte, error)) error {
	if t.ofEpoch() && !w.open {
		return sequencef("%v outside of an epoch", t)
	}
	if w.open && !t.ofEpoch() && t != TypeEpochBegin {
		return sequencef("%v inside epoch %d", t, w.epoch)
	}
	b, err := body(w.start(t))
	if err != nil {
		return fmt.Errorf("sending %v: %w", t, err)
	}
	length := len(b) - recHeaderLen
	le.PutUint32(b[4:], uint32(length))
	w.head = append(b, w.zero[:padLen(length)]...)
	return w.emit()
}

// emit sends w.head, as a record of the epoch if one is open.
func (w *Writer) emit() error {
	if w.open {
		w.sum.records++
		w.octets += uint64(len(w.head))
		w.sum.crc = crc32.Update(w.sum.crc, castagnoli, w.head)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.write(w.head)
	return w.err
}

// write is called with w.mu held.  After an error nothing more is written: the
// peer could take it for the rest of the record that was cut off.
func (w *Writer) write(b []byte) {
	if !w.started && w.err == nil {
		w.started = true
		_, w.err = w.w.Write(streamHeader())
	}
	if w.err == nil {
		_, w.err = w.w.Write(b)
	}
}

func (w *Writer) gather() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cork != nil {
		w.corked = true
		w.cork.Cork()
	}
}

// flush is called with w.mu held.
func (w *Writer) flush() {
	if w.cork != nil && w.err == nil {
		w.err = w.cork.Flush()
	}
}

func streamHeader() []byte {
	b := binary.BigEndian.AppendUint64(nil, marker)
	b = binary.BigEndian.AppendUint32(b, ident)
	b = binary.BigEndian.AppendUint32(b, Version)
	return append(b, make([]byte, 8)...)
}
