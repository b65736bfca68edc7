// SPDX-License-Identifier: Apache-2.0

package link

import (
	"sync"
	"time"

	"github.com/kemari-ft/kemari/toolstack/lease"
)

// repeat is after how long a verdict that calls for a fence is told again: the
// fence may have failed.
const repeat = 5 * time.Second

// Pulse sends heartbeats and judges the peer by what arrives.
//
// It runs beside the goroutine that owns the guest, which may be stuck in a
// write to a peer that has vanished: then Pulse closes the connection.
type Pulse struct {
	second func() uint64 // nil: there is no second path
	report func(lease.Verdict)

	mu         sync.Mutex
	conn       *Conn
	generation uint64
	sequence   uint64
	armed      bool

	stop chan struct{}
	done sync.WaitGroup
}

// NewPulse starts a pulse. second counts the answers on the second path.
// report is called with each new verdict, and must not block for long.
func NewPulse(t lease.Timing, second func() uint64, report func(lease.Verdict)) (*Pulse, error) {
	d, err := lease.NewDetector(t)
	if err != nil {
		return nil, err
	}
	p := &Pulse{second: second, report: report, stop: make(chan struct{})}
	p.done.Go(func() { p.run(d) })
	return p, nil
}

// Stop ends it.
func (p *Pulse) Stop() {
	close(p.stop)
	p.done.Wait()
}

// Over says which connection the pulse goes over; nil: none.
func (p *Pulse) Over(c *Conn, generation uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conn, p.generation = c, generation
	if c != nil {
		c.heard.Store(true)
	}
}

// Arm says whether the peer is judged.
func (p *Pulse) Arm(armed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed = armed
}

func (p *Pulse) run(d *lease.Detector) {
	tick := time.NewTicker(lease.TickLength)
	defer tick.Stop()
	last, told := lease.Alive, time.Now()
	var heard uint64
	var beating sync.Mutex
	for {
		select {
		case <-p.stop:
			return
		case <-tick.C:
		}
		p.mu.Lock()
		conn, armed := p.conn, p.armed
		p.mu.Unlock()
		if conn != nil && conn.heard.Swap(false) || !armed {
			d.Seen(lease.Link)
		}
		if p.second != nil {
			if n := p.second(); n != heard {
				heard = n
				d.Seen(lease.Second)
			}
		}
		if !armed {
			d.Seen(lease.Second)
			// That nobody is judged any more is no sign of life.
			last = lease.Alive
		}
		v, beat := d.Tick()
		if beat && conn != nil && beating.TryLock() {
			// A heartbeat waits behind a long record.
			go func() {
				defer beating.Unlock()
				p.beat(conn)
			}()
		}
		if p.second == nil && v == lease.Degraded {
			v = lease.Alive
		}
		if v >= lease.DaemonLost && conn != nil {
			conn.Close()
		}
		urgent := v == lease.Dead || v == lease.Hung
		if v != last || urgent && time.Since(told) >= repeat {
			last, told = v, time.Now()
			p.report(v)
		}
	}
}

func (p *Pulse) beat(conn *Conn) {
	p.mu.Lock()
	p.sequence++
	generation, sequence := p.generation, p.sequence
	p.mu.Unlock()
	if err := conn.Heartbeat(generation, sequence); err != nil {
		conn.Close()
	}
}
