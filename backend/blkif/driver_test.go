// SPDX-License-Identifier: Apache-2.0

package blkif

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/kemari-ft/kemari/backend/ring/ringtest"
	"github.com/kemari-ft/kemari/xen/abi"
)

// driver is a front end over one queue.
type driver struct {
	t     testing.TB
	h     *host
	front *ringtest.Front
	ch    QueueChannel
	event func() // delivers the front end's event
	ops   map[uint64]uint8
	id    uint64
}

func newDriver(t testing.TB, h *host, n, pages int) *driver {
	f := ringtest.New(pages*abi.PageSize, slotSize)
	c := QueueChannel{Port: abi.Port(10 + n)}
	for k := range pages {
		c.Refs = append(c.Refs, abi.GrantRef(1000+n*100+k))
	}
	h.rings[c.Refs[0]] = f.Mem
	return &driver{t: t, h: h, front: f, ch: c, ops: map[uint64]uint8{}}
}

// seg builds a descriptor.
func seg(ref abi.GrantRef, first, last uint8) []byte {
	b := make([]byte, segmentSize)
	binary.LittleEndian.PutUint32(b, uint32(ref))
	b[4], b[5] = first, last
	return b
}

func rw(op uint8, sector uint64, segs ...[]byte) []byte {
	b := make([]byte, slotSize)
	b[0], b[1] = op, uint8(len(segs))
	binary.LittleEndian.PutUint64(b[16:], sector)
	copy(b[24:], bytes.Join(segs, nil))
	return b
}

func indirect(op uint8, sector uint64, n int, ref abi.GrantRef) []byte {
	b := make([]byte, slotSize)
	b[0], b[1] = abi.BlkifOpIndirect, op
	binary.LittleEndian.PutUint16(b[2:], uint16(n))
	binary.LittleEndian.PutUint64(b[16:], sector)
	binary.LittleEndian.PutUint32(b[28:], uint32(ref))
	return b
}

func discard(flag uint8, sector, n uint64) []byte {
	b := make([]byte, slotSize)
	b[0], b[1] = abi.BlkifOpDiscard, flag
	binary.LittleEndian.PutUint64(b[16:], sector)
	binary.LittleEndian.PutUint64(b[24:], n)
	return b
}

// put pushes requests.
func (d *driver) put(reqs ...[]byte) {
	for _, b := range reqs {
		d.id++
		b = bytes.Clone(b)
		binary.LittleEndian.PutUint64(b[8:], d.id)
		d.ops[d.id] = (*raw)(b).transferOp()
		d.front.Put(b)
	}
	if d.front.Push() && d.event != nil {
		d.event()
	}
}

// responses returns the statuses that have arrived, in order, and checks what
// blkfront checks.
func (d *driver) responses() (status []int16) {
	d.front.Responses(func(i uint32, rsp []byte) {
		id := binary.LittleEndian.Uint64(rsp)
		op, ok := d.ops[id]
		if !ok {
			d.t.Fatalf("a response to request %d, which is not pending", id)
		}
		if rsp[8] != op {
			d.t.Fatalf("the response names operation %d, the request was %d", rsp[8], op)
		}
		delete(d.ops, id)
		status = append(status, int16(binary.LittleEndian.Uint16(rsp[10:])))
	})
	return status
}

// wait waits for n responses.
func (d *driver) wait(n int) (status []int16) {
	d.t.Helper()
	for end := time.Now().Add(waitFor); len(status) < n; {
		if time.Now().After(end) {
			d.t.Fatalf("%d of %d responses in %v", len(status), n, waitFor)
		}
		select {
		case <-d.h.notified:
		case <-time.After(time.Millisecond):
		}
		status = append(status, d.responses()...)
	}
	return status
}

// do pushes one request and waits for its answer.
func (d *driver) do(req []byte) int16 {
	d.t.Helper()
	d.put(req)
	return d.wait(1)[0]
}
