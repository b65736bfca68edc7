// SPDX-License-Identifier: Apache-2.0

package ether

import (
	"io"
	"sync"
	"time"
)

// outboxLimit is how many frames may wait for a port; more are dropped, as a
// switch does whose port is too slow.
const outboxLimit = 4096

// An outbox holds the frames on their way to a port until they are due.
type outbox struct {
	wake chan struct{} // holds one token when there may be something new

	mu     sync.Mutex
	queue  []delayed // protected by mu; ordered by due, then by arrival
	closed bool      // protected by mu
}

type delayed struct {
	frame []byte
	due   time.Time
}

func newOutbox() *outbox { return &outbox{wake: make(chan struct{}, 1)} }

func (o *outbox) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func (o *outbox) put(frame []byte, due time.Time) {
	o.mu.Lock()
	if o.closed || len(o.queue) >= outboxLimit {
		o.mu.Unlock()
		return
	}
	i := len(o.queue)
	for i > 0 && o.queue[i-1].due.After(due) {
		i--
	}
	o.queue = append(o.queue, delayed{})
	copy(o.queue[i+1:], o.queue[i:])
	o.queue[i] = delayed{frame, due}
	o.mu.Unlock()
	o.signal()
}

func (o *outbox) close() {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.signal()
}

// take has one caller at a time.
func (o *outbox) take() ([]byte, error) {
	for {
		o.mu.Lock()
		if o.closed {
			o.mu.Unlock()
			o.signal() // for the next call
			return nil, io.EOF
		}
		var timer <-chan time.Time
		if len(o.queue) > 0 {
			wait := time.Until(o.queue[0].due)
			if wait <= 0 {
				frame := o.queue[0].frame
				o.queue = o.queue[1:]
				o.mu.Unlock()
				return frame, nil
			}
			timer = time.After(wait)
		}
		o.mu.Unlock()
		select {
		case <-o.wake:
		case <-timer:
		}
	}
}
