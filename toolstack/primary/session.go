// SPDX-License-Identifier: Apache-2.0

package primary

import (
	"context"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/kemari-ft/kemari/toolstack/host"
	"github.com/kemari-ft/kemari/toolstack/lease"
	"github.com/kemari-ft/kemari/toolstack/link"
	"github.com/kemari-ft/kemari/toolstack/replica"
	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/toolstack/transport"
	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/evtchn"
	"github.com/kemari-ft/kemari/xen/kemariop"
)

// Config is what a session is about.
type Config struct {
	Host     *host.Host
	Dom      abi.DomID
	Guest    uuid.UUID
	Name     string
	Peer     transport.Transport
	NoFence  error         // why fence_command proves nothing about this peer, or nil
	Interval time.Duration // longest epoch
	Record   lease.Record
	Disks    Disks
	// Frozen: the disks are frozen already, because the daemon before this
	// one may have left an epoch that has not been sent.
	Frozen bool
}

// Session protects one guest. One goroutine owns it: nothing that concerns the
// guest happens anywhere else, but for what only waits.
type Session struct {
	cfg     Config
	log     host.Log
	machine *replica.Primary

	events  chan any
	trigger chan struct{}
	done    chan struct{}
	ctx     context.Context
	cancel  context.CancelFunc
	helpers sync.WaitGroup

	// What follows belongs to the owner.
	local    []replica.Event // caused by actions, not taken yet
	op       *kemariop.Client
	capture  *Capture
	evtchns  *evtchn.Handle
	port     abi.Port // local end of Xen's notification port
	xen      kemariop.SyncResult
	store    *storeView
	conn     *link.Conn
	connID   uint64
	pulse    *link.Pulse
	dialing  bool
	fruitful bool // something was acknowledged since the secondary was called last
	frozen   bool // harvested, not released
	stopped  bool // the disks are frozen
	rings    []stream.Ring
	nodes    []byte // xenstore's part of the epoch, nil: as before
	ready    bool   // HELLOs have been exchanged over conn
	wanted   bool   // a sync was asked for that could not be made
	dead     bool   // the domain is gone
	timer    *time.Timer
	unsent   []abi.GFN // dirtied in the first copy, not sent again yet
	measure  meter
	shutdown bool // GuestEnded was told
	letGo    bool
	asked    chan<- string // an operator waits to hear why the guest is not handed over
	why      reason        // for the sync that the timer stands for
	copying  uint64        // generation of the full epoch that is open on conn
	tried    sending       // the newest epoch

	status status
}

// commands for the owner beside replica events.
type (
	dialed  struct{ conn *link.Conn }
	message struct {
		conn uint64
		msg  any
	}
	ended struct {
		conn uint64
		err  error
	}
	noPeer struct{ err error }
	look   struct{}
	quit   struct{}
	// handOver: refused is told why it comes to nothing.
	handOver struct{ refused chan<- string }
)

// New makes a session. Protect or Adopt starts it.
func New(cfg Config) *Session {
	if cfg.Disks == nil {
		cfg.Disks = noDisks{}
	}
	s := &Session{
		cfg: cfg, log: cfg.Host.Log,
		machine: replica.NewPrimary(cfg.Guest, cfg.Record),
		events:  make(chan any, 64), trigger: make(chan struct{}, 1),
		done: make(chan struct{}), timer: time.NewTimer(time.Hour),
	}
	// Until Xen has been asked, there may be an epoch that is not acknowledged.
	s.stopped, s.frozen = cfg.Frozen, cfg.Frozen
	s.measure.counters = newCounters(cfg.Host.Hypercalls)
	s.status.note(cfg.Record, s.machine.Waiting())
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Start begins the session's goroutine: a new protection, or with adopt the
// one that an earlier daemon has left behind.
func (s *Session) Start(adopt bool) {
	go func() {
		defer close(s.done)
		defer s.helpers.Wait()
		defer s.cancel()
		err := s.run(adopt)
		s.status.end(err)
	}()
}

// Done is closed when the session has ended.
func (s *Session) Done() <-chan struct{} { return s.done }

// Send gives the session an operator's event.
func (s *Session) Send(ev replica.Event) { s.post(ev) }

// HandOver lets the guest go on at the secondary, and with that ends the session.
// It returns where the reason is sent if that comes to nothing.
func (s *Session) HandOver() <-chan string {
	refused := make(chan string, 1)
	s.post(handOver{refused})
	return refused
}

// Look makes the session look whether the domain still is what it was.
func (s *Session) Look() { s.post(look{}) }

// Sync asks for a sync, for a disk that waits for one. It does not block.
func (s *Session) Sync() {
	select {
	case s.trigger <- struct{}{}:
	default:
	}
}

// Stop ends the session and leaves the guest as it is: a daemon that starts
// later takes it up again.
func (s *Session) Stop() {
	s.post(quit{})
	<-s.done
}

func (s *Session) post(ev any) {
	select {
	case s.events <- ev:
	case <-s.done:
	case <-s.ctx.Done():
	}
}

func (s *Session) run(adopt bool) (err error) {
	defer s.closeAll()
	timing := s.cfg.Host.Timing()
	var second func() uint64
	if s.cfg.Host.Second != nil {
		second = s.cfg.Host.Second.Heard
	}
	if s.pulse, err = link.NewPulse(timing, second, func(v lease.Verdict) { s.post(replica.PeerJudged{Verdict: v}) }); err != nil {
		return err
	}
	if s.op, err = kemariop.New(s.cfg.Host.Hypercalls, s.cfg.Dom); err != nil {
		return err
	}
	if adopt {
		err = s.adopt()
	} else {
		err = s.step(replica.Protect{Peer: s.cfg.Peer.String()})
	}
	for err == nil && !s.over() {
		select {
		case ev := <-s.events:
			if _, stop := ev.(quit); stop {
				return nil
			}
			err = s.handle(ev)
		case <-s.trigger:
			err = s.sync(reasonEvent)
		case <-s.timer.C:
			err = s.sync(s.why)
		}
	}
	return err
}

// over: there is nothing left to do.
func (s *Session) over() bool {
	switch rec := s.machine.Record(); rec.Phase {
	case lease.Unprotected, lease.Ended:
		return true
	case lease.HandedOver:
		return s.letGo
	}
	return false
}

// handle takes what came from outside.
func (s *Session) handle(ev any) error {
	switch ev := ev.(type) {
	case dialed:
		return s.connected(ev.conn)
	case noPeer:
		s.log.Warn("the secondary cannot be reached", s.who("error", ev.err)...)
		if s.machine.Record().Phase == lease.Copying {
			s.status.fail(ev.err)
			return s.step(replica.Unprotect{})
		}
	case message:
		if ev.conn == s.connID {
			return s.received(ev.msg)
		}
	case ended:
		if ev.conn == s.connID {
			s.hangup()
		}
		return s.step(replica.Disconnected{Conn: ev.conn, Err: ev.err})
	case look:
		return s.lookAtDomain()
	case handOver:
		s.asked = ev.refused
		return s.step(replica.HandOver{})
	case replica.Event:
		return s.step(ev)
	}
	return nil
}

// step gives the machine an event and does what it says, and then the same for
// events that came of that.
func (s *Session) step(ev replica.Event) error {
	s.local = append(s.local, ev)
	for len(s.local) > 0 {
		ev := s.local[0]
		s.local = s.local[1:]
		for _, a := range s.machine.Step(ev) {
			if err := s.act(a); err != nil {
				return err
			}
		}
	}
	if s.asked != nil && !s.machine.HandingOver() {
		s.asked <- s.Status(false).Text
		s.asked = nil
	}
	rec := s.machine.Record()
	s.pulse.Arm(rec.Phase == lease.Protecting)
	s.status.note(rec, s.machine.Waiting())
	return nil
}

func (s *Session) who(args ...any) []any {
	return append([]any{"guest", s.cfg.Name, "domid", uint16(s.cfg.Dom)}, args...)
}

func (s *Session) closeAll() {
	s.cancel()
	s.hangup()
	s.pulse.Stop()
	s.closeCapture()
	s.measure.counters.close()
	if !s.frozen {
		// An epoch that has not been acknowledged goes to the secondary
		// later, with memory as it is now (I3).
		s.thaw()
	}
	if s.store != nil {
		s.store.close()
	}
	if s.op != nil {
		_ = s.op.Close()
	}
}
