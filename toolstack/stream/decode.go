// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"strings"

	"github.com/kemari-ft/kemari/xen/abi"
)

// record takes a known record whose body has come whole.
func (r *Reader) record(t RecordType, b []byte) (any, error) {
	switch t {
	case TypeHello:
		h, err := parseHello(b)
		if err != nil {
			return nil, err
		}
		if h.Role != r.from {
			return nil, sequencef("HELLO of a %v, expected a %v", h.Role, r.from)
		}
		r.hello = h
		return h, nil
	case TypeRefuse:
		r.over = true
		return orErr(parseRefuse(b))
	case TypeShell:
		s, err := parseShell(b, r.limits)
		if err != nil {
			return nil, err
		}
		r.shell, r.last = s, 0
		return s, nil
	case TypeEpochBegin:
		return nil, r.begin(b)
	case TypeZeros, TypeHoles:
		return r.gfnList(t, b)
	case TypeLines:
		return nil, r.lines(b)
	case TypeAlways:
		return nil, r.always(b)
	case TypeState:
		if r.parts.state {
			return nil, sequencef("second STATE")
		}
		r.parts.state = true
		r.current.State = append(r.current.State[:0], b...)
		return nil, nil
	case TypeXenstore:
		if r.parts.xenstore {
			return nil, sequencef("second XENSTORE")
		}
		r.parts.xenstore = true
		r.current.stored = append(append(r.current.stored[:0], b...), 0)
		r.current.Xenstore = r.current.stored[:len(b)] // never nil
		return nil, nil
	case TypeRings:
		return nil, r.rings(b)
	case TypeEpochEnd:
		return r.end(b)
	}
	return r.control(t, b)
}

// control takes the records that consist of numbers.
func (r *Reader) control(t RecordType, b []byte) (any, error) {
	first := le.Uint64(b)
	var second uint64
	if len(b) > oneWordLen {
		second = le.Uint64(b[8:])
	}
	switch t {
	case TypeAck:
		if second == 0 || r.last != 0 && second != r.last+1 {
			return nil, sequencef("acknowledges epoch %d after epoch %d", second, r.last)
		}
		r.last = second
		return Ack{first, second}, nil
	case TypeHeartbeat:
		if r.beat != 0 && second <= r.beat {
			return nil, sequencef("heartbeat %d after %d", second, r.beat)
		}
		r.beat = second
		return Heartbeat{first, second}, nil
	case TypeDiscarded:
		return Discarded{first}, nil
	}
	// The rest come from a primary, and are the last thing it says.
	if first != r.hello.Generation {
		return nil, sequencef("generation %d in a stream of generation %d", first, r.hello.Generation)
	}
	r.over = true
	switch t {
	case TypeDiscard:
		return Discard{first}, nil
	case TypeLetGo:
		if second == 0 || second != r.last {
			return nil, sequencef("lets go at epoch %d, the last one here is %d", second, r.last)
		}
		return LetGo{first, second}, nil
	default: // TypeEnd
		why := Reason(second)
		if second < uint64(ReasonPoweroff) || second > uint64(ReasonDestroyed) {
			return nil, corruptf("reason %d", second)
		}
		return End{first, why}, nil
	}
}

func orErr[T any](v *T, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return v, nil
}

func (r *Reader) begin(b []byte) error {
	generation, number, flags := le.Uint64(b), le.Uint64(b[8:]), le.Uint64(b[16:])
	full := flags&beginFull != 0
	switch {
	case flags&^beginFull != 0:
		return kindf(ErrUnsupported, "flags %#x", flags)
	case generation != r.hello.Generation:
		return sequencef("epoch of generation %d in a stream of generation %d", generation, r.hello.Generation)
	case number != r.last+1:
		return sequencef("epoch %d after epoch %d", number, r.last)
	case full != (number == 1):
		return sequencef("epoch %d, full: %v", number, full)
	}
	// Waits while two epochs are held: back-pressure on the primary.
	e := <-r.pool.free
	e.Generation, e.Number, e.Full = generation, number, full
	r.current, r.parts = e, parts{}
	if words := int(r.shell.MaxGFN/64) + 1; !full && len(r.seen) < words {
		r.seen = make([]uint64, words)
	}
	return nil
}

// name notes that a staged epoch says something about gfn.  Once only: the
// result must not depend on an order of application.
func (r *Reader) name(gfn abi.GFN) error {
	if gfn > r.shell.MaxGFN {
		return limitf("gfn %#x, the guest ends at %#x", gfn, r.shell.MaxGFN)
	}
	if r.current.Full {
		return nil
	}
	if r.seen[gfn/64]&(1<<(gfn%64)) != 0 {
		return sequencef("gfn %#x twice in epoch %d", gfn, r.current.Number)
	}
	r.seen[gfn/64] |= 1 << (gfn % 64)
	return nil
}

// bounded holds a staged epoch to the size which SHELL announced.
func (r *Reader) bounded() error {
	if total := r.sum.pages + r.sum.zeros + r.sum.holes + r.sum.lines; !r.current.Full && total > uint64(r.shell.EpochPages) {
		return limitf("%d pages in an epoch of at most %d", total, r.shell.EpochPages)
	}
	return nil
}

func (r *Reader) pages(length int64) (any, error) {
	const most = listLen + MaxBatch*(8+abi.PageSize)
	if length < listLen || length > most {
		return nil, limitf("body of %d octets, %d to %d allowed", length, listLen, most)
	}
	n := int(length-listLen) / (8 + abi.PageSize)
	r.buf = append(r.buf[:0], make([]byte, listLen+n*8)...)
	if err := r.readSummed(r.buf); err != nil {
		return nil, err
	}
	if le.Uint64(r.buf) != uint64(n) || int64(listLen+n*(8+abi.PageSize)) != length {
		return nil, corruptf("%d pages in a body of %d octets", le.Uint64(r.buf), length)
	}
	e := r.current
	r.sum.pages += uint64(n)
	if err := r.bounded(); err != nil {
		return nil, err
	}
	if e.Full {
		e.gfns = e.gfns[:0] // the batch before has been applied
	}
	first, second := e.room(n)
	for i := range n {
		gfn := abi.GFN(le.Uint64(r.buf[listLen+i*8:]))
		if err := r.name(gfn); err != nil {
			return nil, err
		}
		e.gfns = append(e.gfns, gfn)
	}
	if err := r.readSummed(first); err != nil {
		return nil, err
	}
	if err := r.readSummed(second); err != nil {
		return nil, err
	}
	if !e.Full {
		return nil, nil
	}
	r.batch = Batch{Generation: e.Generation, GFNs: e.gfns, Data: first}
	return &r.batch, nil
}

func (r *Reader) gfnList(t RecordType, b []byte) (any, error) {
	n := (len(b) - listLen) / 8
	if le.Uint64(b) != uint64(n) || listLen+n*8 != len(b) {
		return nil, corruptf("%d gfns in a body of %d octets", le.Uint64(b), len(b))
	}
	e := r.current
	list, count := &e.Zeros, &r.sum.zeros
	if t == TypeHoles {
		list, count = &e.Holes, &r.sum.holes
	}
	*count += uint64(n)
	if err := r.bounded(); err != nil {
		return nil, err
	}
	if e.Full {
		*list = (*list)[:0]
	}
	for i := range n {
		gfn := abi.GFN(le.Uint64(b[listLen+i*8:]))
		if err := r.name(gfn); err != nil {
			return nil, err
		}
		*list = append(*list, gfn)
	}
	if !e.Full {
		return nil, nil
	}
	r.batch = Batch{Generation: e.Generation}
	if t == TypeHoles {
		r.batch.Holes = *list
	} else {
		r.batch.Zeros = *list
	}
	return &r.batch, nil
}

func (r *Reader) always(b []byte) error {
	if r.parts.always {
		return sequencef("second ALWAYS")
	}
	r.parts.always = true
	n := le.Uint64(b)
	if n > MaxAlways || listLen+int(n)*alwaysLen > len(b) {
		return corruptf("%d always-sent pages in a body of %d octets", n, len(b))
	}
	entries, data := b[listLen:listLen+int(n)*alwaysLen], b[listLen+int(n)*alwaysLen:]
	e := r.current
	e.images = append(e.images[:0], data...)
	data = e.images
	for ; len(entries) > 0; entries = entries[alwaysLen:] {
		p := AlwaysPage{
			Kind:  AlwaysKind(le.Uint16(entries)),
			Index: le.Uint32(entries[4:]),
			GFN:   abi.GFN(le.Uint64(entries[8:])),
		}
		flags := le.Uint16(entries[2:])
		switch {
		case flags > alwaysLines:
			return kindf(ErrUnsupported, "flags %#x", flags)
		case p.GFN > MaxGFN:
			return limitf("gfn %#x", p.GFN)
		case len(e.Always) > 0 && e.Always[len(e.Always)-1].GFN >= p.GFN:
			return sequencef("always-sent page %#x after %#x", p.GFN, e.Always[len(e.Always)-1].GFN)
		}
		if e.Full && flags != alwaysHasImg {
			return sequencef("always-sent page %#x without contents in the first epoch", p.GFN)
		}
		if flags == alwaysLines {
			if len(data) < lineSetLen {
				return corruptf("lines of always-sent page %#x are missing", p.GFN)
			}
			p.Lines, data = LineSet(le.Uint64(data)), data[lineSetLen:]
			if err := p.Lines.check(p.GFN); err != nil {
				return err
			}
		}
		if flags != 0 {
			n, ok := p.span(data)
			if !ok {
				return corruptf("contents of always-sent page %#x are missing", p.GFN)
			}
			p.Data, data = data[:n:n], data[n:]
		}
		e.Always = append(e.Always, p)
	}
	if len(data) != 0 {
		return corruptf("%d octets after the last always-sent page", len(data))
	}
	return nil
}

func (r *Reader) rings(b []byte) error {
	if r.parts.rings {
		return sequencef("second RINGS")
	}
	r.parts.rings = true
	n := (len(b) - listLen) / ringLen
	if le.Uint64(b) != uint64(n) || listLen+n*ringLen != len(b) {
		return corruptf("%d rings in a body of %d octets", le.Uint64(b), len(b))
	}
	for b = b[listLen:]; len(b) > 0; b = b[ringLen:] {
		r.current.Rings = append(r.current.Rings, Ring{
			Class: le.Uint16(b), Queue: le.Uint16(b[2:]), DevID: le.Uint32(b[4:]),
			RspProd: le.Uint32(b[8:]), ReqProd: le.Uint32(b[12:]),
		})
	}
	return nil
}

func (r *Reader) end(b []byte) (any, error) {
	e := r.current
	if g, k := le.Uint64(b), le.Uint64(b[8:]); g != e.Generation || k != e.Number {
		return nil, sequencef("end of epoch %d of generation %d inside epoch %d of %d", k, g, e.Number, e.Generation)
	}
	want := tally{
		pages: le.Uint64(b[16:]), zeros: le.Uint64(b[24:]), holes: le.Uint64(b[32:]), lines: le.Uint64(b[40:]),
		records: le.Uint32(b[48:]), crc: le.Uint32(b[52:]),
	}
	if err := epochWhole(r.sum, want); err != nil {
		return nil, err
	}
	if p := r.parts; !p.always || !p.state || !p.rings || e.Full && !p.xenstore {
		return nil, missing(p)
	}
	if !e.Full {
		for _, p := range e.Always {
			if p.GFN <= r.shell.MaxGFN && r.seen[p.GFN/64]&(1<<(p.GFN%64)) != 0 {
				return nil, sequencef("gfn %#x is an always-sent page and an ordinary one in epoch %d", p.GFN, e.Number)
			}
		}
		for _, gfn := range e.gfns {
			r.seen[gfn/64] = 0
		}
		for _, gfn := range e.Zeros {
			r.seen[gfn/64] = 0
		}
		for _, gfn := range e.Holes {
			r.seen[gfn/64] = 0
		}
		for _, c := range e.changed {
			r.seen[c.gfn/64] = 0
		}
	} else {
		e.gfns, e.Zeros, e.Holes = e.gfns[:0], e.Zeros[:0], e.Holes[:0]
	}
	r.last, r.current = e.Number, nil
	return e, nil
}

func missing(p parts) error {
	var names strings.Builder
	for _, m := range []struct {
		name string
		came bool
	}{{"ALWAYS", p.always}, {"STATE", p.state}, {"RINGS", p.rings}, {"XENSTORE", p.xenstore}} {
		if !m.came {
			names.WriteString(" " + m.name)
		}
	}
	return sequencef("epoch ends without%s", names.String())
}
