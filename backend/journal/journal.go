// SPDX-License-Identifier: Apache-2.0

// Package journal remembers, beyond the death of the process, the requests a
// back end has taken from its rings and not answered.
//
// A response is written into the slot of its request, and only afterwards does
// rsp_prod move past it. A process killed between these two stores leaves a
// slot that counts as unanswered and holds no request any more. So each request
// is copied here when it is taken, and a restarted back end trusts the journal
// for every request the journal covers, the ring's slots for the others
// (invariant I2).
//
// The journal is a file on a memory file system, mapped and written with plain
// stores: it outlives the process, not the host. Losing the host is what the
// other host is for.
//
//	offset  header, HeaderSize bytes, never changed once the file has its name
//	     0  magic "KEMARIRJ"
//	     8  version, 1
//	    12  slot size
//	    16  number of queues
//	    20  slots per queue
//	    24  identity: what the journal belongs to
//	    32  CRC-32C of the 32 bytes before
//
//	offset  queue, HeaderSize + n * queue size
//	     0  req_cons: requests before it are in the journal
//	     4  gate limit P_c
//	     8  1 if the gate is closed
//	    64  slots: index, CRC-32C of index and request, request
//
// All integers are in host order; the file never leaves the host.
package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync/atomic"
	"unsafe"

	"github.com/kemari-ft/kemari/backend/gate"
)

// Specification constants.
const (
	HeaderSize = 64

	version     = 1
	queueHeader = 64
	slotHeader  = 8

	offReqCons = 0
	offLimit   = 4
	offClosed  = 8
)

var magic = [8]byte{'K', 'E', 'M', 'A', 'R', 'I', 'R', 'J'}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrForeign says that a journal does not belong to this connection.
var ErrForeign = errors.New("the journal belongs to another connection")

// Config is the shape of a journal.
type Config struct {
	SlotSize int
	Queues   int
	Slots    int // per queue; a power of two
	// Identity names the connection: a front end that connected anew has
	// other rings, to which an old journal says nothing.
	Identity uint64
}

func (c Config) queueSize() int { return queueHeader + c.Slots*c.stride() }
func (c Config) stride() int    { return (slotHeader + c.SlotSize + 7) &^ 7 }
func (c Config) size() int      { return HeaderSize + c.Queues*c.queueSize() }

func (c Config) header() (h [36]byte) {
	copy(h[:], magic[:])
	le := binary.LittleEndian
	le.PutUint32(h[8:], version)
	le.PutUint32(h[12:], uint32(c.SlotSize))
	le.PutUint32(h[16:], uint32(c.Queues))
	le.PutUint32(h[20:], uint32(c.Slots))
	le.PutUint64(h[24:], c.Identity)
	le.PutUint32(h[32:], crc32.Checksum(h[:32], castagnoli))
	return h
}

// check says whether a file of size bytes that begins with head is a journal of
// this shape and identity.
func (c Config) check(head []byte, size int64) error {
	want := c.header()
	if len(head) < len(want) {
		return fmt.Errorf("%d bytes are too few for a journal", len(head))
	}
	if [8]byte(head[:8]) != magic {
		return errors.New("not a journal: wrong magic")
	}
	if got := binary.LittleEndian.Uint32(head[32:]); got != crc32.Checksum(head[:32], castagnoli) {
		return errors.New("the header's checksum is wrong")
	}
	if v := binary.LittleEndian.Uint32(head[8:]); v != version {
		return fmt.Errorf("version %d, this program reads version %d", v, version)
	}
	if [36]byte(head[:36]) != want {
		return ErrForeign
	}
	if size != int64(c.size()) {
		return fmt.Errorf("%d bytes long, its header says %d", size, c.size())
	}
	return nil
}

// Queue is the journal of one ring. It is not safe for concurrent use.
type Queue struct {
	reqCons *uint32
	limit   *uint32
	closed  *uint32

	slots    []byte
	stride   uint32
	slotSize uint32
	mask     uint32
}

func (c Config) queue(mem []byte, n int) *Queue {
	q := mem[HeaderSize+n*c.queueSize():][:c.queueSize()]
	word := func(off int) *uint32 { return (*uint32)(unsafe.Pointer(&q[off])) }
	return &Queue{
		reqCons:  word(offReqCons),
		limit:    word(offLimit),
		closed:   word(offClosed),
		slots:    q[queueHeader:],
		stride:   uint32(c.stride()),
		slotSize: uint32(c.SlotSize),
		mask:     uint32(c.Slots) - 1,
	}
}

func (q *Queue) slot(i uint32) []byte {
	off := (i & q.mask) * q.stride
	return q.slots[off : off+slotHeader+q.slotSize]
}

func checksum(s []byte) uint32 {
	return crc32.Update(crc32.Checksum(s[:4], castagnoli), castagnoli, s[slotHeader:])
}

// Record notes request i, the one at req_cons, as taken. It must return before
// anything is done about the request.
func (q *Queue) Record(i uint32, req []byte) {
	q.write(i, req)
	// The slot is complete before req_cons covers it: sync/atomic orders the
	// stores for whoever reads the file later.
	atomic.StoreUint32(q.reqCons, i+1)
}

func (q *Queue) write(i uint32, req []byte) {
	s := q.slot(i)
	binary.LittleEndian.PutUint32(s, i)
	copy(s[slotHeader:], req[:q.slotSize])
	binary.LittleEndian.PutUint32(s[4:], checksum(s))
}

// Request copies request i, taken and perhaps not answered, into dst.
func (q *Queue) Request(i uint32, dst []byte) error {
	s := q.slot(i)
	if got := binary.LittleEndian.Uint32(s); got != i {
		return fmt.Errorf("journal: request %d is not there, its place holds request %d", i, got)
	}
	if binary.LittleEndian.Uint32(s[4:]) != checksum(s) {
		return fmt.Errorf("journal: the checksum of request %d is wrong", i)
	}
	copy(dst, s[slotHeader:])
	return nil
}

// SetGate notes where the gate stands.
func (q *Queue) SetGate(r gate.Recovery) {
	var closed uint32
	if r.Closed {
		closed = 1
	}
	// A closed gate is never seen with an old limit that lies ahead.
	atomic.StoreUint32(q.limit, r.Limit)
	atomic.StoreUint32(q.closed, closed)
}

// Start notes the position of a ring just taken up.
func (q *Queue) Start(r gate.Recovery) {
	atomic.StoreUint32(q.reqCons, r.ReqCons)
	q.SetGate(r)
}

// Recovery is what the queue remembers of its ring.
func (q *Queue) Recovery() gate.Recovery {
	return gate.Recovery{
		ReqCons: atomic.LoadUint32(q.reqCons),
		Limit:   atomic.LoadUint32(q.limit),
		Closed:  atomic.LoadUint32(q.closed) != 0,
	}
}
