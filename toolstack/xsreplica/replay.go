// SPDX-License-Identifier: Apache-2.0

package xsreplica

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/kemari-ft/kemari/xen/abi"
)

// Replay registers watches in the name of a shell: it speaks to xenstored over
// the shell's store page, mapped and 4 KiB long, in the guest's place.  kick
// sends an event to xenstored from the guest's store port.  At the end the
// guest's own image of the page, which has to be quiet, takes the place of what
// was there, and the guest knows of nothing.
//
// The shell must be introduced to xenstored and must not run, and until Replay
// returns nobody may write to a node that is watched.
//
// After an error the page is not the guest's yet: see Reset.
func Replay(ctx context.Context, dom abi.DomID, page, image []byte, watches []Watch, kick func() error) error {
	err := replay(ctx, dom, page, image, watches, kick)
	if err != nil {
		return fmt.Errorf("register the %d watches of domain %d: %w", len(watches), uint16(dom), err)
	}
	return nil
}

// Reset gives the guest its image after a Replay that failed.  xenstored may
// then hold a part of a request or owe replies.  Over the image it would go on
// with those: take the beginning of the guest's next request for the end of
// ours, and the guest the end of a reply to us for the beginning of one to it.
// So the connection is begun anew first, as xs_wire.h provides for a client to
// ask and oxenstored does before it reads or writes anything (xs_ring_stubs.c).
// To release and introduce the domain instead would tell all of dom0 that it is
// gone, and take the rights to its nodes from it (process.ml: do_release).
//
// If xenstored does not do it in time, or the image is not quiet, the guest gets
// the image with that wish still in it, and an error is returned: whatever
// xenstored finds when it comes back, it throws away.  A request of the guest's
// may stay without an answer then, but none is taken for another one.
func Reset(ctx context.Context, dom abi.DomID, page, image []byte, kick func() error) error {
	r, err := newRing(page)
	if err != nil {
		return err
	}
	if err = r.reconnect(ctx, kick); err == nil {
		// Nothing is queued from before, and the rings are empty.
		err = replay(ctx, dom, page, image, nil, kick)
	}
	if err == nil {
		return nil
	}
	r.put(image, reconnect)
	return errors.Join(fmt.Errorf("reset the store connection of domain %d: %w", uint16(dom), err), kick())
}

// reconnect has xenstored begin the connection anew.
func (r ring) reconnect(ctx context.Context, kick func() error) error {
	connection := r.index(offConnection)
	atomic.StoreUint32(connection, reconnect)
	if err := kick(); err != nil {
		return fmt.Errorf("send the event of the store port: %w", err)
	}
	for atomic.LoadUint32(connection) != connected {
		select {
		case <-ctx.Done():
			return fmt.Errorf("xenstored does not answer: %w", context.Cause(ctx))
		case <-time.After(maxPoll):
		}
	}
	return nil
}

func replay(ctx context.Context, dom abi.DomID, page, image []byte, watches []Watch, kick func() error) error {
	if busy := RingBusy(image); busy != "" {
		return fmt.Errorf("image of the store page is not quiet: %s", busy)
	}
	r, err := newRing(page)
	if err != nil {
		return err
	}
	d, err := newDialogue(dom, watches)
	if err != nil {
		return err
	}
	wait := minPoll
	for !d.done {
		moved, err := d.step(r)
		if err != nil {
			return err
		}
		if moved {
			wait = minPoll
			if err := kick(); err != nil {
				return fmt.Errorf("send the event of the store port: %w", err)
			}
			continue
		}
		// No event tells of the reply: those to the guest are parked.
		select {
		case <-ctx.Done():
			return fmt.Errorf("xenstored does not answer (%d of %d requests answered): %w", d.answered, len(watches)+1, context.Cause(ctx))
		case <-time.After(wait):
			wait = min(2*wait, maxPoll)
		}
	}
	return r.swap(image)
}

const (
	minPoll = 20 * time.Microsecond
	maxPoll = 5 * time.Millisecond
)

// dialogue is what is said to xenstored and what it has answered: a request for
// each watch, and then one whose answer proves that nothing is queued before
// it.  Request i has id i+1.
type dialogue struct {
	watches  []Watch
	out, in  []byte
	answered int
	events   map[Watch]bool // those whose first event has come
	done     bool
}

func newDialogue(dom abi.DomID, watches []Watch) (*dialogue, error) {
	d := &dialogue{events: map[Watch]bool{}}
	if err := d.ask(watches); err != nil {
		return nil, err
	}
	// Any domain may ask this at any time, and it changes nothing.
	d.out = appendMessage(d.out, abi.XSGetDomainPath, uint32(len(d.watches)+1), strconv.Itoa(int(dom))+"\x00")
	return d, nil
}

// step moves what can be moved in both directions.
func (d *dialogue) step(r ring) (moved bool, err error) {
	n, err := r.write(d.out)
	if err != nil {
		return false, err
	}
	d.out = d.out[n:]
	before := len(d.in)
	if d.in, err = r.read(d.in); err != nil {
		return false, err
	}
	moved = n > 0 || len(d.in) > before
	return moved, d.parse()
}

func (d *dialogue) parse() error {
	for {
		m, rest, ok, err := nextMessage(d.in)
		if err != nil || !ok {
			return err
		}
		d.in = rest
		if err := d.take(m); err != nil {
			return err
		}
	}
}

func (d *dialogue) take(m message) error {
	payload := strings.TrimSuffix(m.payload, "\x00")
	if m.typ == abi.XSWatchEvent {
		path, token, _ := strings.Cut(payload, "\x00")
		d.events[Watch{path, token}] = true
		return nil
	}
	if d.done || m.reqID != uint32(d.answered+1) {
		return fmt.Errorf("xenstored answers request %d, expected was %d", m.reqID, d.answered+1)
	}
	d.answered++
	if d.answered <= len(d.watches) {
		w := d.watches[d.answered-1]
		if m.typ != abi.XSWatch {
			return fmt.Errorf("watch %s: xenstored answers %.40q (type %d)", w.Path, payload, m.typ)
		}
		return nil
	}
	if m.typ != abi.XSGetDomainPath {
		return fmt.Errorf("xenstored answers %.40q (type %d) to GET_DOMAIN_PATH", payload, m.typ)
	}
	for _, w := range d.watches {
		if !d.events[w] {
			return fmt.Errorf("watch %s: its first event did not come", w.Path)
		}
	}
	if len(d.in) != 0 {
		return fmt.Errorf("%d bytes follow the last answer: something was written to a watched node", len(d.in))
	}
	d.done = true
	return nil
}
