// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"errors"
	"fmt"

	"github.com/kemari-ft/kemari/backend/ring"
)

// ErrFrozen says that a ring was to be read or written between Freeze and
// Thaw.
var ErrFrozen = errors.New("gate: the ring is frozen")

// Status is what Next found.
type Status uint8

const (
	// Fetched: a request was handed out.
	Fetched Status = iota
	// Idle: there is none, and the front end will notify of the next.
	Idle
	// Waiting: the next one waits for the commit of a capture made already.
	Waiting
	// Uncaptured: the next one waits for a sync. The front end need not have
	// notified of it, because the ring was being read when it was pushed, so
	// the caller must ask for the sync.
	Uncaptured
)

var statusNames = [...]string{"fetched", "idle", "waiting", "uncaptured"}

func (s Status) String() string {
	if int(s) < len(statusNames) {
		return statusNames[s]
	}
	return fmt.Sprintf("status %d", uint8(s))
}

// Config describes a kind of ring.
type Config struct {
	SlotSize int // size of the union of request and response
	RspSize  int // size of the response
	// Effect says whether the request in a slot can change anything outside
	// the guest. It sees foreign bytes and must answer true if in doubt.
	Effect func(req []byte) bool
}

// Ring is a back ring behind a commit gate. It is not safe for concurrent use.
type Ring struct {
	back   *ring.BackRing
	gate   gate
	effect func([]byte) bool
	peek   []byte
}

func attach(mem []byte, c Config, start uint32) (*Ring, error) {
	back, err := ring.AttachBack(mem, c.SlotSize, c.RspSize, start)
	if err != nil {
		return nil, err
	}
	return &Ring{back: back, effect: c.Effect, peek: make([]byte, c.SlotSize)}, nil
}

// Connect takes up the ring of a front end that just offered it, with the gate
// open. As in Linux's xen_blkif_map it starts at the shared rsp_prod, which is
// 0 in a new ring.
func Connect(mem []byte, c Config) (*Ring, error) {
	r, err := attach(mem, c, 0)
	if err != nil {
		return nil, err
	}
	if r, err = attach(mem, c, r.back.SharedRspProd()); err != nil {
		return nil, err
	}
	if _, err := r.back.ReqProd(); err != nil {
		return nil, err
	}
	return r, nil
}

// Attach takes up a ring on another host at a committed capture, with the gate
// closed at its P_c: every request in [rsp_prod, P_c) is handed out again
// (invariant I6). mem is the ring as it was captured.
func Attach(mem []byte, c Config, at Indices) (*Ring, error) {
	r, err := attach(mem, c, restartAt(at))
	if err != nil {
		return nil, err
	}
	prod, err := r.back.ReqProd()
	if err != nil {
		return nil, err
	}
	if rsp := r.back.SharedRspProd(); rsp != at.RspProd || prod != at.ReqProd {
		return nil, fmt.Errorf("gate: the ring's rsp_prod %d and req_prod %d are not those of the commit, %d and %d",
			rsp, prod, at.RspProd, at.ReqProd)
	}
	r.gate.close(at.ReqProd)
	return r, nil
}

// Recovery is what a back end remembers of its ring beyond its own death.
type Recovery struct {
	ReqCons uint32 // requests before this one were handed out
	Limit   uint32 // P_c
	Closed  bool   // whether the gate was closed
}

// Recover takes up the ring of a back end that died on this host. Requests
// [rsp_prod, ReqCons) count as handed out: the caller has them in its journal
// and starts them again, after telling each to Redo. Their slots are not read,
// since a response may have been half written there.
func Recover(mem []byte, c Config, was Recovery) (*Ring, error) {
	r, err := Connect(mem, c)
	if err != nil {
		return nil, err
	}
	if err := r.back.Resume(was.ReqCons); err != nil {
		return nil, fmt.Errorf("gate: rsp_prod %d does not fit the journal's req_cons %d: %w",
			r.back.RspProdPvt(), was.ReqCons, err)
	}
	if _, err := r.back.ReqProd(); err != nil {
		return nil, err
	}
	if was.Closed {
		r.gate.close(was.Limit)
	}
	return r, nil
}

// Redo records that request i, which Recover took as handed out, is being done
// again.
func (r *Ring) Redo(i uint32, req []byte) { r.gate.fetched(i, r.effect(req)) }

// InProgress is the range of requests handed out and not answered.
func (r *Ring) InProgress() (from, to uint32) { return r.back.RspProdPvt(), r.back.ReqCons() }

// Size is the number of slots.
func (r *Ring) Size() uint32 { return r.back.Size() }

// Recovery is what to remember for Recover.
func (r *Ring) Recovery() Recovery {
	return Recovery{ReqCons: r.back.ReqCons(), Limit: r.gate.limit, Closed: r.gate.closed}
}

// Next copies the next request into dst and returns its index, if there is one
// that may be worked on. dst has the size of a slot. The decision is made on
// the copy handed out.
func (r *Ring) Next(dst []byte) (i uint32, s Status, err error) {
	if r.held() {
		return 0, Waiting, ErrFrozen
	}
	i = r.back.ReqCons()
	prod, err := r.back.ReqProd()
	if err == nil && i == prod {
		// RING_FINAL_CHECK_FOR_REQUESTS. req_event moves only when nothing is
		// left: past a request that has to wait for a sync, the notification
		// that triggers this sync would be lost.
		r.back.SetReqEvent(prod + 1)
		prod, err = r.back.ReqProd()
	}
	if err != nil || i == prod {
		return 0, Idle, err
	}
	r.back.Peek(i, dst)
	effect := r.effect(dst)
	if !r.gate.allow(i, effect, r.back.RspProdPvt()) {
		if r.gate.covered(i) || !effect {
			return 0, Waiting, nil
		}
		return 0, Uncaptured, nil
	}
	r.back.Consume()
	r.gate.fetched(i, effect)
	return i, Fetched, nil
}

// Complete records the response to request i. Work may complete while the ring
// is frozen; it is seen after Thaw.
func (r *Ring) Complete(i uint32, rsp []byte) error { return r.back.Complete(i, rsp) }

// Publish makes the completed responses visible whose turn has come, and says
// how many there were and whether to notify the front end. Reads behind them
// may be allowed now. A frozen ring publishes nothing.
func (r *Ring) Publish() (n int, notify bool) {
	if r.held() {
		return 0, false
	}
	n, notify = r.back.Publish()
	r.gate.answered(r.back.RspProdPvt())
	return n, notify
}
