// SPDX-License-Identifier: Apache-2.0

package blkif

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/kemari-ft/kemari/backend/gate"
	"github.com/kemari-ft/kemari/backend/journal"
	"github.com/kemari-ft/kemari/xen/abi"
)

// request is one in work. There is one per slot, made once.
type request struct {
	queue *queue
	index uint32
	raw   raw
}

// queue is one ring of a device.
type queue struct {
	dev     *Device
	link    *link
	mapping Mapping
	port    abi.Port

	wake    chan struct{} // holds at most one
	pending atomic.Bool   // the port is masked until it is looked at

	mu       sync.Mutex // protects what follows
	ring     *gate.Ring
	journal  *journal.Queue
	requests []request // by index modulo the ring's size
	waiting  bool      // the next request waits, perhaps for an answer
	dead     bool      // the front end broke the protocol
}

// kick makes the loop look at the ring.
func (q *queue) kick() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *queue) loop(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-q.wake:
		}
		masked := q.pending.Swap(false)
		q.serve(stop)
		if masked {
			if err := q.dev.cfg.Events.Unmask(q.port); err != nil {
				q.dev.fail(err)
			}
		}
	}
}

// serve hands the requests that may pass to the workers.
func (q *queue) serve(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		s, err := q.take()
		if err != nil {
			q.dev.fail(err)
			return
		}
		switch s {
		case gate.Fetched:
		case gate.Uncaptured:
			if q.dev.cfg.NeedSync != nil {
				q.dev.cfg.NeedSync()
			}
			return
		default:
			return
		}
	}
}

// take moves one request from the ring to the workers.
func (q *queue) take() (gate.Status, error) {
	q.dev.freeze.RLock()
	defer q.dev.freeze.RUnlock()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.dead {
		return gate.Idle, nil
	}
	_, next := q.ring.InProgress()
	r := &q.requests[next&(q.ring.Size()-1)]
	i, s, err := q.ring.Next(r.raw[:])
	if err != nil {
		q.dead = true
		return s, err
	}
	q.waiting = s == gate.Waiting || s == gate.Uncaptured
	if s == gate.Fetched {
		q.journal.Record(i, r.raw[:])
		r.index = i
		q.link.work <- r // has room for every slot of every ring
	}
	return s, nil
}

// redo gives the workers what a process that died had in work.
func (q *queue) redo() error {
	from, to := q.ring.InProgress()
	for i := from; i != to; i++ {
		r := &q.requests[i&(q.ring.Size()-1)]
		if err := q.taken(i, r.raw[:]); err != nil {
			return err
		}
		r.index = i
		q.ring.Redo(i, r.raw[:])
		q.link.work <- r
	}
	return nil
}

// complete answers r, which is not touched afterwards.
func (q *queue) complete(r *request, status int16) {
	rsp := r.raw.response(status)
	notify, more, err := q.publish(r.index, rsp[:])
	if err != nil {
		q.dev.fail(err)
		return
	}
	if notify {
		q.notify()
	}
	if more {
		q.kick()
	}
}

// publish says whether to notify the front end, and whether requests may pass
// now that had to wait for this answer.
func (q *queue) publish(i uint32, rsp []byte) (notify, more bool, err error) {
	q.dev.freeze.RLock()
	defer q.dev.freeze.RUnlock()
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.ring.Complete(i, rsp); err != nil {
		return false, false, err
	}
	n, notify := q.ring.Publish()
	return notify, n > 0 && q.waiting, nil
}

// notify sends the front end an event. A failure means that the domain is
// going away; the front end's state says so too.
func (q *queue) notify() {
	if err := q.dev.cfg.Events.Notify(q.port); err != nil {
		q.dev.report(q.dev.errf("notifying the front end: %w", err))
	}
}

func (q *queue) release() error {
	return errors.Join(q.dev.cfg.Events.Unbind(q.port), q.mapping.Close())
}
