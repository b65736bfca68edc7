// SPDX-License-Identifier: Apache-2.0

package blkif

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"

	"github.com/kemari-ft/kemari/backend/gate"
	"github.com/kemari-ft/kemari/backend/journal"
	"github.com/kemari-ft/kemari/backend/ring"
	"github.com/kemari-ft/kemari/xen/abi"
)

// Connect takes up the rings of a front end that just offered them, with open
// gates.
func (d *Device) Connect(ch []QueueChannel) error {
	return d.connect(ch, start{
		ring: func(_ int, mem []byte) (*gate.Ring, error) { return gate.Connect(mem, ringConfig) },
	})
}

// Attach takes up the rings of a front end that was served by another host, at
// a committed capture, with closed gates: what was committed and not answered
// is done again. Open lets the rest pass. The rings must be as captured, so it
// comes before the guest runs.
func (d *Device) Attach(ch []QueueChannel, at []gate.Indices) error {
	if len(at) != len(ch) {
		return d.errf("the commit holds %d rings, the front end has %d", len(at), len(ch))
	}
	return d.connect(ch, start{
		kick: true,
		ring: func(n int, mem []byte) (*gate.Ring, error) { return gate.Attach(mem, ringConfig, at[n]) },
	})
}

// Recover takes up the rings of a front end that was served by a process that
// died on this host. It needs that process's journal: the error matches
// fs.ErrNotExist if there is none.
func (d *Device) Recover(ch []QueueChannel) error {
	return d.connect(ch, start{kick: true, recover: true})
}

// start says how rings are taken up.
type start struct {
	ring    func(n int, mem []byte) (*gate.Ring, error)
	recover bool
	kick    bool // the front end may have missed a notification
}

func (d *Device) connect(ch []QueueChannel, how start) (err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.link.Load() != nil {
		return d.errf("connecting: it is connected already")
	}
	slots, err := check(ch)
	if err != nil {
		return d.errf("connecting: %w", err)
	}
	shape := journal.Config{SlotSize: slotSize, Queues: len(ch), Slots: int(slots), Identity: identity(ch)}
	l := &link{stop: make(chan struct{}), work: make(chan *request, len(ch)*int(slots))}
	defer func() {
		if err == nil {
			return
		}
		for _, q := range l.queues {
			err = errors.Join(err, q.release())
		}
		if l.journal != nil {
			err = errors.Join(err, l.journal.Close())
		}
		err = d.errf("connecting: %w", err)
	}()

	if how.recover {
		if l.journal, err = journal.Open(d.cfg.Journal, shape); err != nil {
			return err
		}
		how.ring = func(n int, mem []byte) (*gate.Ring, error) {
			return gate.Recover(mem, ringConfig, l.journal.Queue(n).Recovery())
		}
	}
	for n, c := range ch {
		q, err := d.openQueue(l, n, c, how)
		if err != nil {
			return err
		}
		l.queues = append(l.queues, q)
	}
	if !how.recover {
		l.journal, err = journal.Create(d.cfg.Journal, shape, func(n int, jq *journal.Queue) {
			jq.Start(l.queues[n].ring.Recovery())
		})
		if err != nil {
			return err
		}
	}
	for n, q := range l.queues {
		q.journal = l.journal.Queue(n)
		if how.recover {
			if err = q.redo(); err != nil {
				return err
			}
		}
	}
	return d.run(l, how.kick)
}

// run starts the goroutines of a link that is complete.
func (d *Device) run(l *link, kick bool) error {
	buffers, err := newBuffers(d.cfg.Workers)
	if err != nil {
		return err
	}
	d.link.Store(l)
	d.settle()
	for _, b := range buffers {
		l.workers.Go(func() { d.newWorker(b).run(l.work) })
	}
	for _, q := range l.queues {
		l.loops.Go(func() { q.loop(l.stop) })
		// The front end may have pushed before there was anybody to notify;
		// and whoever waits for events may have seen the first one, which
		// Xen sends at the binding, before the port was known as ours.
		q.kick()
		if err := d.cfg.Events.Unmask(q.port); err != nil {
			d.fail(err)
		}
		if kick {
			q.notify()
		}
	}
	return nil
}

// settle brings the gates of a link that has just become visible to where Gate or
// Ungate wanted them: what came before found no link to go over.
func (d *Device) settle() {
	for _, q := range d.queues() {
		q.mu.Lock()
		if d.gated.Load() {
			q.ring.Close()
		} else {
			q.ring.Open()
		}
		q.journal.SetGate(q.ring.Recovery())
		q.mu.Unlock()
	}
}

// check validates what the front end offers and returns the slots per ring.
func check(ch []QueueChannel) (uint32, error) {
	if len(ch) == 0 || len(ch) > MaxQueues {
		return 0, fmt.Errorf("%d rings are not between 1 and %d", len(ch), MaxQueues)
	}
	pages := len(ch[0].Refs)
	for n, c := range ch {
		if len(c.Refs) != pages {
			return 0, fmt.Errorf("ring %d has %d pages, ring 0 has %d", n, len(c.Refs), pages)
		}
	}
	if pages == 0 || pages > 1<<MaxRingOrder || pages&(pages-1) != 0 {
		return 0, fmt.Errorf("a ring of %d pages is not a power of two up to %d", pages, 1<<MaxRingOrder)
	}
	return ring.Entries(pages*abi.PageSize, slotSize), nil
}

// identity tells one connection of a front end from another.
func identity(ch []QueueChannel) uint64 {
	h := fnv.New64a()
	var b [4]byte
	put := func(v uint32) {
		binary.LittleEndian.PutUint32(b[:], v)
		h.Write(b[:])
	}
	for _, c := range ch {
		put(uint32(c.Port))
		put(uint32(len(c.Refs)))
		for _, r := range c.Refs {
			put(uint32(r))
		}
	}
	return h.Sum64()
}

func (d *Device) openQueue(l *link, n int, c QueueChannel, how start) (*queue, error) {
	m, err := d.cfg.Grants.Map(d.cfg.Dom, c.Refs)
	if err != nil {
		return nil, err
	}
	q := &queue{dev: d, link: l, mapping: m, wake: make(chan struct{}, 1)}
	if q.ring, err = how.ring(n, m.Bytes()); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	if q.ring.Recovery().Closed {
		d.gated.Store(true) // by the other host, or the process before this one
	} else if d.gated.Load() {
		q.ring.Close()
	}
	if q.port, err = d.cfg.Events.BindInterdomain(d.cfg.Dom, c.Port); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	q.requests = make([]request, q.ring.Size())
	for k := range q.requests {
		q.requests[k].queue = q
	}
	return q, nil
}
