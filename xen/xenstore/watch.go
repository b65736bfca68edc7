// SPDX-License-Identifier: Apache-2.0

package xenstore

import (
	"strconv"
	"sync"

	"github.com/kemari-ft/kemari/xen/abi"
)

// Event says that something at or below the watched path may have changed.
type Event struct {
	Path string
}

// Watch delivers the changes at and below a path. C is closed by Close and when
// the connection ends (see Client.Err).
type Watch struct {
	C <-chan Event

	c           *Client
	path, token string
	ch          chan Event
	wake        chan struct{} // has an element if queue may have grown
	stopped     chan struct{}
	stopOnce    sync.Once

	mu    sync.Mutex
	queue []Event
}

// Watch begins to watch a path, or a special one such as @releaseDomain. An
// event for the path itself comes at once.
func (c *Client) Watch(path string) (*Watch, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	w := &Watch{c: c, path: path, ch: make(chan Event), wake: make(chan struct{}, 1), stopped: make(chan struct{})}
	w.C = w.ch

	// Before the request, as events may overtake its answer.
	c.mu.Lock()
	c.token++
	w.token = "w" + strconv.FormatUint(c.token, 10)
	if c.err == nil {
		c.watches[w.token] = w
	}
	c.mu.Unlock()

	if _, err := c.request(abi.XSWatch, 0, path, terminate(path, w.token)); err != nil {
		w.forget()
		return nil, err
	}
	go w.deliver()
	return w, nil
}

// Pending is the number of events which wait for the reader of C.
func (w *Watch) Pending() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.queue)
}

// Close ends the watch. Events that have not been read are dropped.
func (w *Watch) Close() error {
	if !w.forget() {
		return nil // closed before, or the connection has ended
	}
	w.stop()
	_, err := w.c.request(abi.XSUnwatch, 0, w.path, terminate(w.path, w.token))
	return err
}

// forget makes the client drop events for w. It reports false if it did before.
func (w *Watch) forget() bool {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	_, ok := w.c.watches[w.token]
	delete(w.c.watches, w.token)
	return ok
}

func (w *Watch) stop() { w.stopOnce.Do(func() { close(w.stopped) }) }

func (w *Watch) push(e Event) {
	w.mu.Lock()
	w.queue = append(w.queue, e)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// deliver hands the queue to the reader of C.
func (w *Watch) deliver() {
	defer close(w.ch)
	for {
		select {
		case <-w.wake:
		case <-w.stopped:
			return
		}
		for {
			w.mu.Lock()
			if len(w.queue) == 0 {
				w.queue = nil
				w.mu.Unlock()
				break
			}
			e := w.queue[0]
			w.mu.Unlock()
			select {
			case w.ch <- e:
			case <-w.stopped:
				return
			}
			w.mu.Lock()
			w.queue = w.queue[1:]
			w.mu.Unlock()
		}
	}
}
