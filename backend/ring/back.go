// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"errors"
	"fmt"
	"math/bits"
	"sync/atomic"
	"unsafe"
)

// Layout of struct __name##_sring, common to all ring types. See
// DEFINE_RING_TYPES in xen/include/public/io/ring.h (4.20).
const (
	offReqProd  = 0
	offReqEvent = 4
	offRspProd  = 8
	offRspEvent = 12

	// HeaderSize is offsetof(struct __name##_sring, ring).
	HeaderSize = 64
)

// ErrOverflow says that the front end claims more requests than the ring has
// slots: RING_REQUEST_PROD_OVERFLOW in ring.h. Such a ring can not be served.
var ErrOverflow = errors.New("ring: req_prod is further ahead of rsp_prod than the ring is long")

// ErrNotOurs says that a response was offered for a request that is not being
// worked on: it was never consumed, or is answered already.
var ErrNotOurs = errors.New("ring: no such request is in progress")

// BackRing is struct __name##_back_ring plus the completed responses that wait
// for their turn. It is not safe for concurrent use.
type BackRing struct {
	reqProd, reqEvent *uint32
	rspProd, rspEvent *uint32

	slots    []byte
	slotSize uint32
	mask     uint32

	reqCons    uint32 // next request to consume; req_cons in ring.h
	rspProdPvt uint32 // next response to publish; rsp_prod_pvt in ring.h

	// Responses completed but not published, by request index & mask.
	rspSize uint32
	rsp     []byte
	done    []bool
}

// Entries is __RING_SIZE of ring.h: the slots that fit into a shared ring of
// size bytes, rounded down to a power of two; 0 when not one fits.
func Entries(size, slotSize int) uint32 {
	n := (size - HeaderSize) / slotSize
	if size < HeaderSize || n <= 0 {
		return 0
	}
	return 1 << (bits.Len32(uint32(n)) - 1)
}

// AttachBack is BACK_RING_ATTACH(_r, _s, _i, __size) of ring.h: it takes up
// the shared ring in mem at index i, which is 0 for a ring just initialised
// and the ring's rsp_prod for one taken over from another back end. slotSize
// is the size of the ring's union of request and response, rspSize that of the
// response. mem must be aligned to 4 bytes.
func AttachBack(mem []byte, slotSize, rspSize int, i uint32) (*BackRing, error) {
	n := Entries(len(mem), slotSize)
	if n == 0 {
		return nil, fmt.Errorf("ring: %d bytes hold no slot of %d bytes", len(mem), slotSize)
	}
	if rspSize <= 0 || rspSize > slotSize {
		return nil, fmt.Errorf("ring: a response of %d bytes does not fit a slot of %d", rspSize, slotSize)
	}
	if uintptr(unsafe.Pointer(&mem[0]))%4 != 0 {
		return nil, errors.New("ring: the shared ring is not aligned to 4 bytes")
	}
	return &BackRing{
		reqProd:    index(mem, offReqProd),
		reqEvent:   index(mem, offReqEvent),
		rspProd:    index(mem, offRspProd),
		rspEvent:   index(mem, offRspEvent),
		slots:      mem[HeaderSize : HeaderSize+int(n)*slotSize],
		slotSize:   uint32(slotSize),
		mask:       n - 1,
		reqCons:    i,
		rspProdPvt: i,
		rspSize:    uint32(rspSize),
		rsp:        make([]byte, int(n)*rspSize),
		done:       make([]bool, n),
	}, nil
}

func index(mem []byte, off int) *uint32 {
	return (*uint32)(unsafe.Pointer(&mem[off]))
}

// Size is RING_SIZE: the number of slots.
func (r *BackRing) Size() uint32 { return r.mask + 1 }

// ReqCons is the index of the next request to consume.
func (r *BackRing) ReqCons() uint32 { return r.reqCons }

// RspProdPvt is the index of the next response to publish: all requests before
// it are answered as far as this back end is concerned.
func (r *BackRing) RspProdPvt() uint32 { return r.rspProdPvt }

// SharedRspProd is the rsp_prod that lies in the shared page. The front end
// can write there, so it is a claim to be checked.
func (r *BackRing) SharedRspProd() uint32 { return atomic.LoadUint32(r.rspProd) }

// ReqEvent is the index whose push makes the front end notify.
func (r *BackRing) ReqEvent() uint32 { return atomic.LoadUint32(r.reqEvent) }

// ReqProd returns the front end's producer index, or ErrOverflow if there can
// not be that many requests: RING_REQUEST_PROD_OVERFLOW. The load orders what
// is read from the slots after it (xen_rmb() in every back end's loop):
// sync/atomic is sequentially consistent.
func (r *BackRing) ReqProd() (uint32, error) {
	prod := atomic.LoadUint32(r.reqProd)
	if prod-r.rspProdPvt > r.Size() || prod-r.rspProdPvt < r.reqCons-r.rspProdPvt {
		return 0, ErrOverflow
	}
	return prod, nil
}

// SetReqEvent asks the front end to notify when it pushes request e-1. The
// store is a full barrier (XCHG on amd64), so a ReqProd after it sees every
// push that did not see e: the xen_mb() of RING_FINAL_CHECK_FOR_REQUESTS.
func (r *BackRing) SetReqEvent(e uint32) { atomic.StoreUint32(r.reqEvent, e) }

// Peek copies request i into dst, which must have the size of a slot, without
// consuming it. It is RING_COPY_REQUEST: the guest may change the slot at any
// time, so whatever is decided about a request must be decided on, and done
// with, the same copy.
func (r *BackRing) Peek(i uint32, dst []byte) {
	off := (i & r.mask) * r.slotSize
	copy(dst[:r.slotSize], r.slots[off:off+r.slotSize])
}

// Consume takes the request at req_cons as in progress. The caller has peeked
// at it and checked that ReqProd is past it.
func (r *BackRing) Consume() { r.reqCons++ }

// Resume takes requests up to reqCons as in progress without reading them: the
// caller has them from elsewhere. It is for a back end that goes on with the
// work of one that died.
func (r *BackRing) Resume(reqCons uint32) error {
	if reqCons-r.rspProdPvt > r.Size() || reqCons-r.rspProdPvt < r.reqCons-r.rspProdPvt {
		return ErrOverflow
	}
	r.reqCons = reqCons
	return nil
}

// Complete records the response for request i. It becomes visible to the front
// end when all requests before i are completed and Publish is called.
func (r *BackRing) Complete(i uint32, rsp []byte) error {
	s := i & r.mask
	if i-r.rspProdPvt >= r.reqCons-r.rspProdPvt || r.done[s] {
		return ErrNotOurs
	}
	copy(r.rsp[s*r.rspSize:(s+1)*r.rspSize], rsp)
	r.done[s] = true
	return nil
}

// Publish puts the responses whose turn has come into their slots and moves
// rsp_prod past them: RING_PUSH_RESPONSES_AND_CHECK_NOTIFY. It returns how
// many there were and whether the front end asked to be notified.
func (r *BackRing) Publish() (n int, notify bool) {
	old := r.rspProdPvt
	for r.rspProdPvt != r.reqCons {
		src, ok := r.nextToPublish()
		if !ok {
			break
		}
		r.done[src] = false
		off := (r.rspProdPvt & r.mask) * r.slotSize
		copy(r.slots[off:off+r.rspSize], r.rsp[src*r.rspSize:(src+1)*r.rspSize])
		r.rspProdPvt++
	}
	next := r.rspProdPvt
	if next == old {
		return 0, false
	}
	// The store orders the responses before the index (xen_wmb), and the
	// load of rsp_event after it (xen_mb).
	atomic.StoreUint32(r.rspProd, next)
	event := atomic.LoadUint32(r.rspEvent)
	return int(next - old), next-event < next-old
}
