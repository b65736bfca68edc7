// SPDX-License-Identifier: Apache-2.0

package xsreplica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/kemari-ft/kemari/xen/abi"
)

// ring is the guest's end of a store page: it writes requests and reads
// replies, as the guest's own driver would (linux: xenbus_comms.c).
type ring struct{ page []byte }

func newRing(page []byte) (ring, error) {
	if len(page) != abi.PageSize || uintptr(unsafe.Pointer(unsafe.SliceData(page)))%8 != 0 {
		return ring{}, fmt.Errorf("store page of %d bytes, or not aligned to 8", len(page))
	}
	return ring{page}, nil
}

func (r ring) index(off int) *uint32 { return (*uint32)(unsafe.Pointer(&r.page[off])) }
func (r ring) pair(off int) *uint64  { return (*uint64)(unsafe.Pointer(&r.page[off])) }

var errRing = errors.New("indices of the store ring are more than its size apart")

// write puts as much of b into the ring of requests as there is room for.
func (r ring) write(b []byte) (int, error) {
	prod, cons := *r.index(offReqProd), atomic.LoadUint32(r.index(offReqCons))
	used := prod - cons
	if used > abi.XenstoreRingSize {
		return 0, errRing
	}
	n := min(len(b), int(abi.XenstoreRingSize-used))
	for i := range n {
		r.page[offReq+(prod+uint32(i))%abi.XenstoreRingSize] = b[i]
	}
	if n > 0 {
		atomic.StoreUint32(r.index(offReqProd), prod+uint32(n))
	}
	return n, nil
}

// read takes all there is from the ring of replies and appends it to b.
func (r ring) read(b []byte) ([]byte, error) {
	cons, prod := *r.index(offRspCons), atomic.LoadUint32(r.index(offRspProd))
	n := prod - cons
	if n > abi.XenstoreRingSize {
		return b, errRing
	}
	for i := range n {
		b = append(b, r.page[offRsp+(cons+i)%abi.XenstoreRingSize])
	}
	if n > 0 {
		atomic.StoreUint32(r.index(offRspCons), prod)
	}
	return b, nil
}

// swap replaces the page by an image whose rings are empty.  xenstored may look
// at any time, so each pair of indices changes by one store: at no moment does
// the page hold a request that is none.  Left is the instant between its two
// loads of a pair (xs_ring_stubs.c: ml_interface_read()).  It loads them when
// it is woken for this domain and every twenty seconds; nothing wakes it now.
func (r ring) swap(image []byte) error {
	if busy := RingBusy(image); busy != "" {
		return fmt.Errorf("image of the store page is not quiet: %s", busy)
	}
	for _, off := range []int{offReqCons, offRspCons} {
		if v := atomic.LoadUint64(r.pair(off)); uint32(v) != uint32(v>>32) {
			return errors.New("store ring is not empty: something was written to a watched node, or the guest runs")
		}
	}
	r.put(image, connected)
	return nil
}

// put writes an image of the page, with another word about the connection.
func (r ring) put(image []byte, connection uint32) {
	copy(r.page[:offReqCons], image)
	atomic.StoreUint64(r.pair(offReqCons), binary.LittleEndian.Uint64(image[offReqCons:]))
	atomic.StoreUint64(r.pair(offRspCons), binary.LittleEndian.Uint64(image[offRspCons:]))
	copy(r.page[offRspCons+8:offConnection], image[offRspCons+8:])
	atomic.StoreUint32(r.index(offConnection), connection)
	copy(r.page[offConnection+4:], image[offConnection+4:])
}

// Put writes an image of the store page over the page, which nobody has spoken
// over yet.  See swap about xenstored.
func Put(page, image []byte) error {
	r, err := newRing(page)
	if err != nil {
		return err
	}
	if len(image) != len(page) {
		return fmt.Errorf("image of the store page of %d bytes", len(image))
	}
	r.put(image, binary.LittleEndian.Uint32(image[offConnection:]))
	return nil
}

func appendMessage(b []byte, typ, reqID uint32, payload string) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, typ)
	b = le.AppendUint32(b, reqID)
	b = le.AppendUint32(b, 0) // not in a transaction
	b = le.AppendUint32(b, uint32(len(payload)))
	return append(b, payload...)
}

type message struct {
	typ, reqID uint32
	payload    string
}

// nextMessage takes a message from the front of b; ok is false if it is not
// all there yet.
func nextMessage(b []byte) (m message, rest []byte, ok bool, err error) {
	if len(b) < headerLen {
		return m, b, false, nil
	}
	le := binary.LittleEndian
	m.typ, m.reqID = le.Uint32(b), le.Uint32(b[4:])
	n := le.Uint32(b[12:])
	if n > abi.XenstorePayloadMax {
		return m, b, false, fmt.Errorf("message of type %d with %d bytes from xenstored", m.typ, n)
	}
	if len(b) < headerLen+int(n) {
		return m, b, false, nil
	}
	m.payload = string(b[headerLen : headerLen+n])
	return m, b[headerLen+n:], true, nil
}
