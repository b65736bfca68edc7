// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bufio"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"

	"github.com/kemari-ft/kemari/xen/abi"
)

// Limits is what a host is willing to hold for one guest.
type Limits struct {
	EpochPages  uint32  // most pages in one staged epoch
	MemoryPages uint64  // largest guest
	MaxGFN      abi.GFN // highest gfn; one bit is kept for each
}

func (l Limits) check(s *Shell) error {
	if s.EpochPages > l.EpochPages || s.MemoryPages > l.MemoryPages || s.MaxGFN > l.MaxGFN {
		return limitf("guest of %d pages up to gfn %#x with %d pages an epoch; this host takes %d, %#x, %d",
			s.MemoryPages, s.MaxGFN, s.EpochPages, l.MemoryPages, l.MaxGFN, l.EpochPages)
	}
	return nil
}

// Reader reads one direction of a stream and checks all that can be known of
// it without knowing the guest.  Its errors are final.
type Reader struct {
	r      *bufio.Reader
	from   Role
	limits Limits
	pool   *Pool
	err    error

	offset  uint64 // octets consumed
	records uint64 // records begun
	at      Error  // where the current record starts

	begun   bool // stream header seen
	hello   *Hello
	shell   *Shell
	last    uint64 // epoch read last, or acknowledged
	beat    uint64 // heartbeat read last
	over    bool   // nothing but heartbeats may follow
	current *Epoch
	parts   parts
	sum     tally
	seen    []uint64 // a bit for each gfn named in the current staged epoch
	batch   Batch
	head    [recHeaderLen]byte
	buf     []byte
}

// parts says which records of which there is one an epoch have come.
type parts struct{ always, state, rings, xenstore bool }

// NewReader reads what the peer of the given role sends.  The pool and the
// limits are needed for a primary's stream only.
func NewReader(r io.Reader, from Role, limits Limits, pool *Pool) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, 64<<10), from: from, limits: limits, pool: pool}
}

// Resume tells the reader, after HELLO and before the next call of Next, that
// the primary goes on after an epoch which came over an earlier connection.
func (r *Reader) Resume(s *Shell, last uint64) { r.shell, r.last = s, last }

// Next returns the next thing that came whole: *Hello, *Shell, *Batch, *Epoch,
// Ack, Heartbeat, Discard, Discarded, LetGo, End or *Refuse.  The error is
// io.EOF if the stream ended between two records outside of an epoch.
func (r *Reader) Next() (any, error) {
	for r.err == nil {
		msg, err := r.next()
		if err != nil {
			r.fail(err)
			break
		}
		if msg != nil {
			return msg, nil
		}
	}
	return nil, r.err
}

// fail drops the epoch that was being received (I7).
func (r *Reader) fail(err error) {
	if r.current != nil {
		r.current.Release()
		r.current = nil
	}
	if err == io.EOF {
		r.err = err
		return
	}
	at := r.at
	at.Err = err
	r.err = &at
}

func (r *Reader) next() (any, error) {
	r.at = Error{Record: r.records, Offset: r.offset}
	if !r.begun {
		if err := r.header(); err != nil {
			return nil, err
		}
		r.begun = true
		r.at.Offset = r.offset
	}
	head := r.head[:]
	if n, err := io.ReadFull(r.r, head); err != nil {
		if n == 0 && err == io.EOF && r.current == nil {
			return nil, io.EOF
		}
		return nil, torn(err)
	}
	r.offset += recHeaderLen
	r.records++
	t, length := RecordType(le.Uint32(head)), int64(le.Uint32(head[4:]))
	r.at.Type = t
	if t == 0 {
		return nil, corruptf("record type 0")
	}
	if err := r.allowed(t); err != nil {
		return nil, err
	}
	if t != TypeHeartbeat && (r.current != nil || t == TypeEpochBegin) {
		if t == TypeEpochBegin {
			r.sum = tally{}
		}
		r.sum.records++
		r.sum.crc = crc32.Update(r.sum.crc, castagnoli, head)
	}
	if t == TypePages {
		return r.pages(length)
	}
	fixed, most, known := bodyLimits(t)
	if !known {
		if t&optionalBit == 0 {
			return nil, kindf(ErrUnsupported, "unknown mandatory record %#x", uint32(t))
		}
		most = MaxOptional
	}
	if length < int64(fixed) || length > int64(most) {
		return nil, limitf("body of %d octets, %d to %d allowed", length, fixed, most)
	}
	body, err := r.body(int(length), t)
	if err != nil || !known {
		return nil, err
	}
	return r.record(t, body)
}

func (r *Reader) header() error {
	var b [headerLen]byte
	if n, err := io.ReadFull(r.r, b[:]); err != nil {
		if n == 0 && err == io.EOF {
			return io.EOF
		}
		return torn(err)
	}
	r.offset += headerLen
	be := binary.BigEndian
	if be.Uint64(b[:]) != marker || be.Uint32(b[8:]) != ident {
		return corruptf("not a Kemari stream")
	}
	if v := be.Uint32(b[12:]); v != Version {
		return kindf(ErrUnsupported, "stream version %d, this host speaks %d; run the same Kemari on both", v, Version)
	}
	if be.Uint64(b[16:]) != 0 {
		return kindf(ErrUnsupported, "stream options %#x", be.Uint64(b[16:]))
	}
	return nil
}

// allowed checks the order of records.
func (r *Reader) allowed(t RecordType) error {
	switch {
	case r.hello == nil && t != TypeHello && t != TypeRefuse:
		return sequencef("before HELLO")
	case r.hello != nil && t == TypeHello:
		return sequencef("second HELLO")
	case t == TypeHeartbeat || t&optionalBit != 0:
		return nil
	case r.over:
		return sequencef("after the last record")
	case r.from == Secondary:
		if t != TypeHello && t != TypeRefuse && t != TypeAck && t != TypeDiscarded {
			return sequencef("from a secondary")
		}
	case t == TypeAck || t == TypeDiscarded:
		return sequencef("from a primary")
	case t.ofEpoch():
		if r.current == nil {
			return sequencef("outside of an epoch")
		}
	case r.current != nil:
		return sequencef("inside epoch %d", r.current.Number)
	case t == TypeShell && r.shell != nil:
		return sequencef("guest is described already")
	case t == TypeEpochBegin && r.shell == nil:
		return sequencef("before SHELL")
	}
	return nil
}

// bodyLimits returns the least and the largest length of a record's body.
func bodyLimits(t RecordType) (least, most int, known bool) {
	switch t {
	case TypeHello:
		return helloLen, helloLen + MaxXenVersion, true
	case TypeShell:
		return shellLen, shellLen + MaxShell, true
	case TypeEpochBegin:
		return beginLen, beginLen, true
	case TypeZeros, TypeHoles:
		return listLen, listLen + MaxList*8, true
	case TypeLines:
		return listLen, listLen + MaxBatch*(lineLen+MaxLines*maxLine), true
	case TypeAlways:
		return listLen, listLen + MaxAlways*(alwaysLen+abi.PageSize), true
	case TypeState:
		return 0, MaxState, true
	case TypeRings:
		return listLen, listLen + MaxRings*ringLen, true
	case TypeXenstore:
		return 0, MaxXenstore, true
	case TypeEpochEnd:
		return epochEndLen, epochEndLen, true
	case TypeAck, TypeHeartbeat, TypeLetGo, TypeEnd:
		return twoWordsLen, twoWordsLen, true
	case TypeDiscard, TypeDiscarded:
		return oneWordLen, oneWordLen, true
	case TypeRefuse:
		return listLen, listLen + MaxReasons*(8+MaxReason+7), true
	}
	return 0, 0, false
}

// bodyStep bounds what is allocated for a body before any of it has come.
const bodyStep = 1 << 20

// body reads a record's body and padding.
func (r *Reader) body(length int, t RecordType) ([]byte, error) {
	padded := length + padLen(length)
	r.buf = r.buf[:0]
	for len(r.buf) < padded {
		have := len(r.buf)
		r.buf = append(r.buf, make([]byte, min(padded-have, bodyStep))...)
		if err := r.read(r.buf[have:]); err != nil {
			return nil, err
		}
	}
	if r.current != nil && t != TypeHeartbeat || t == TypeEpochBegin {
		covered := r.buf
		if t == TypeEpochEnd {
			covered = covered[:epochEndLen-4]
		}
		r.sum.crc = crc32.Update(r.sum.crc, castagnoli, covered)
	}
	for _, v := range r.buf[length:] {
		if v != 0 {
			return nil, corruptf("padding is not zero")
		}
	}
	return r.buf[:length], nil
}

func (r *Reader) read(b []byte) error {
	n, err := io.ReadFull(r.r, b)
	r.offset += uint64(n)
	return torn(err)
}

// readPart is how much is read before its checksum is computed: little enough
// to be in the cache still.
const readPart = 128 << 10

func (r *Reader) readSummed(b []byte) error {
	for len(b) > 0 {
		n := min(len(b), readPart)
		if err := r.read(b[:n]); err != nil {
			return err
		}
		r.sum.crc = crc32.Update(r.sum.crc, castagnoli, b[:n])
		b = b[n:]
	}
	return nil
}

// torn makes an early end of the stream ErrTorn, and keeps what the connection
// said otherwise.
func torn(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrTorn
	}
	return err
}
