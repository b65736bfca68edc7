// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// verifier is where the stream stands.  The section numbers in comments are
// those of docs/stream.md.
type verifier struct {
	in  *bufio.Reader
	out io.Writer

	offset int64
	nr     int64 // records read

	role       uint32 // 0 before HELLO
	generation uint64
	closed     string // the record after which only HEARTBEAT may come

	shelled    bool // SHELL has come
	maxGFN     uint64
	epochPages uint64

	lastEpoch uint64 // 0: none yet
	epochs    int
	epoch     *epoch
	images    map[uint64]image // always-sent pages of the epoch before, by gfn

	lastAck, lastBeat uint64
}

type image struct {
	kind  uint16
	index uint32
}

// record is one record, cut out of the stream.
type record struct {
	kind uint32
	raw  []byte // header, body and padding
	body []byte
}

// spec is the table of section 4: name and least and largest body length.
var spec = map[uint32]struct {
	name        string
	least, most uint32
	take        func(*verifier, record) error
}{
	0x01: {"HELLO", 80, 336, (*verifier).hello},
	0x02: {"SHELL", 24, 24 + 1<<20, (*verifier).shell},
	0x03: {"EPOCH_BEGIN", 24, 24, (*verifier).begin},
	0x04: {"PAGES", 8, 8 + 256*4104, (*verifier).pages},
	0x05: {"ZEROS", 8, 8 + 65536*8, (*verifier).zeros},
	0x06: {"HOLES", 8, 8 + 65536*8, (*verifier).holes},
	0x07: {"ALWAYS", 8, 8 + 4096*(16+4096), (*verifier).always},
	0x08: {"STATE", 0, 2 << 20, (*verifier).state},
	0x09: {"RINGS", 8, 8 + 4096*16, (*verifier).rings},
	0x0a: {"XENSTORE", 0, 4 << 20, (*verifier).xenstore},
	0x0b: {"EPOCH_END", 56, 56, (*verifier).end},
	0x0c: {"ACK", 16, 16, (*verifier).ack},
	0x0d: {"HEARTBEAT", 16, 16, (*verifier).heartbeat},
	0x0e: {"DISCARD", 8, 8, (*verifier).last},
	0x0f: {"DISCARDED", 8, 8, (*verifier).discarded},
	0x10: {"END", 16, 16, (*verifier).last},
	0x11: {"LET_GO", 16, 16, (*verifier).last},
	0x12: {"REFUSE", 8, 8 + 64*(8+1031), (*verifier).refuse},
	0x13: {"LINES", 8, 8 + 256*(16+32*65), (*verifier).lines},
}

// verify checks a stream and describes it.
func verify(in io.Reader, out io.Writer) error {
	v := &verifier{in: bufio.NewReaderSize(in, 1<<16), out: out, images: map[uint64]image{}}
	if err := v.header(); err != nil {
		return fmt.Errorf("stream header: %w", err)
	}
	for {
		at := v.offset
		name, err := v.next()
		if err == io.EOF && v.epoch == nil {
			break
		}
		if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("the stream ends here")
		}
		if err != nil {
			return fmt.Errorf("record %d (%s) at octet %d: %w", v.nr, name, at, err)
		}
		v.nr++
	}
	if v.role == 0 && v.closed == "" {
		return errors.New("there is no HELLO")
	}
	_, err := fmt.Fprintf(out, "stream is correct: %d records, %d epochs, %d octets\n", v.nr, v.epochs, v.offset)
	return err
}

// header reads the stream header, section 2.
func (v *verifier) header() error {
	b := make([]byte, 24)
	n, err := io.ReadFull(v.in, b)
	v.offset += int64(n)
	if err != nil {
		return err
	}
	want := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 'K', 'M', 'R', 'I', 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0}
	if !bytes.Equal(b, want) {
		return fmt.Errorf("% x, expected % x", b, want)
	}
	return nil
}

// next reads and checks one record, section 3.
func (v *verifier) next() (string, error) {
	head := make([]byte, 8)
	n, err := io.ReadFull(v.in, head)
	v.offset += int64(n)
	if err != nil {
		return "header", err
	}
	r := record{kind: u32(head, 0)}
	length := u32(head, 4)
	s, known := spec[r.kind]
	switch {
	case !known && r.kind&0x80000000 == 0:
		return "unknown", fmt.Errorf("type %#x is mandatory and unknown", r.kind)
	case !known && length > 1<<20:
		return "unknown", fmt.Errorf("length %d of an optional record", length)
	case known && (length < s.least || length > s.most):
		return s.name, fmt.Errorf("length %d, allowed are %d to %d", length, s.least, s.most)
	}
	if s.name == "" {
		s.name = fmt.Sprintf("optional %#x", r.kind)
	}
	padded := (int64(length) + 7) / 8 * 8
	var body bytes.Buffer
	m, err := io.CopyN(&body, v.in, padded)
	v.offset += m
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return s.name, err
	}
	r.raw = append(head, body.Bytes()...)
	r.body = r.raw[8 : 8+length]
	for _, octet := range r.raw[8+length:] {
		if octet != 0 {
			return s.name, errors.New("padding is not zero")
		}
	}
	if err := v.order(r.kind, s.name); err != nil {
		return s.name, err
	}
	if v.epoch != nil && r.kind != 0x0d {
		v.epoch.cover(r)
	}
	if known {
		err = s.take(v, r)
	}
	return s.name, err
}

// order checks which records may follow, section 5.
func (v *verifier) order(kind uint32, name string) error {
	epochRecord := kind >= 0x04 && kind <= 0x0b || kind == 0x13
	primaryOnly := kind == 0x02 || kind == 0x03 || epochRecord || kind == 0x0e || kind == 0x10 || kind == 0x11
	switch {
	case v.role == 0 && kind != 0x01 && kind != 0x12:
		return errors.New("comes before HELLO")
	case v.role != 0 && kind == 0x01:
		return errors.New("HELLO comes twice")
	case kind == 0x0d || kind&0x80000000 != 0:
		return nil
	case v.closed != "":
		return fmt.Errorf("comes after %s", v.closed)
	case v.role == 2 && primaryOnly, v.role == 1 && (kind == 0x0c || kind == 0x0f):
		return fmt.Errorf("%s comes from the wrong side", name)
	case epochRecord && v.epoch == nil:
		return errors.New("comes outside of an epoch")
	case !epochRecord && v.epoch != nil:
		return fmt.Errorf("comes inside epoch %d", v.epoch.number)
	}
	return nil
}

var le = binary.LittleEndian

func u32(b []byte, at int) uint32 { return le.Uint32(b[at:]) }
func u64(b []byte, at int) uint64 { return le.Uint64(b[at:]) }

func crc(sum uint32, b []byte) uint32 {
	return crc32.Update(sum, crc32.MakeTable(crc32.Castagnoli), b)
}
