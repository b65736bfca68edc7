// SPDX-License-Identifier: Apache-2.0

package primary

import (
	"context"
	"errors"
	"fmt"
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
	word     bool   // the operator says that the peer is off
	why      reason // for the sync that the timer stands for
	copying  uint64 // generation of the full epoch that is open on conn

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
	word   struct{}
	quit   struct{}
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
	s.stopped = cfg.Frozen
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

// PeerIsOff is the operator's word that the secondary is off, in place of a
// fence command's.
func (s *Session) PeerIsOff() { s.post(word{}) }

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
		err = s.step(replica.Protect{})
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
	case word:
		s.word = true
		return s.step(replica.PeerJudged{Verdict: lease.Dead})
	case look:
		return s.lookAtDomain()
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
	rec := s.machine.Record()
	s.pulse.Arm(rec.Phase == lease.Protecting)
	s.status.note(rec, s.machine.Waiting())
	return nil
}

func (s *Session) who(args ...any) []any {
	return append([]any{"guest", s.cfg.Name, "domid", uint16(s.cfg.Dom)}, args...)
}

// lookAtDomain finds out whether the guest has ended.
func (s *Session) lookAtDomain() error {
	info, err := s.cfg.Host.Ctl.DomainInfo(s.cfg.Dom)
	gone := err != nil || info.UUID != [16]byte(s.cfg.Guest) || info.Is(abi.DomInfDying)
	if gone && !s.dead {
		s.log.Info("the domain is gone", s.who()...)
	}
	if gone {
		s.dead = true
		// As long as a page is mapped, the domain keeps its memory.
		s.thaw()
		s.frozen = false
		s.closeCapture()
		if rec := s.machine.Record(); rec.Phase == lease.HandedOver {
			return nil
		}
		return s.endGuest(stream.ReasonDestroyed)
	}
	why, down := info.ShutdownReason()
	if !down {
		return nil
	}
	switch why {
	case abi.ShutdownPoweroff:
		return s.endGuest(stream.ReasonPoweroff)
	case abi.ShutdownReboot:
		return s.endGuest(stream.ReasonReboot)
	case abi.ShutdownSoftReset:
		// kexec: the domain stays, with memory that is not ours to follow.
		return s.step(replica.Unprotect{})
	case abi.ShutdownSuspend:
		return nil
	}
	return s.endGuest(stream.ReasonCrash)
}

func (s *Session) endGuest(why stream.Reason) error {
	if s.shutdown {
		return nil
	}
	s.shutdown = true
	s.log.Info("the guest has ended", s.who("reason", why)...)
	return s.step(replica.GuestEnded{Reason: why})
}

func (s *Session) closeCapture() {
	if s.evtchns != nil {
		_ = s.evtchns.Close()
		s.evtchns = nil
	}
	if s.capture == nil {
		return
	}
	if err := s.capture.Close(); err != nil {
		s.log.Error("unmapping the guest", s.who("error", err)...)
	}
	s.capture = nil
}

func (s *Session) closeAll() {
	s.cancel()
	s.hangup()
	s.pulse.Stop()
	s.closeCapture()
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

// begin takes up the tap's notification port and the store's and console's
// ports, once Kemari is enabled for the domain.
func (s *Session) begin(status kemariop.Status) error {
	var err error
	if s.evtchns, err = evtchn.Open(); err != nil {
		return err
	}
	if s.port, err = s.evtchns.BindInterdomain(s.cfg.Dom, status.Port); err != nil {
		return err
	}
	s.helpers.Go(func() { s.wait(s.evtchns, s.port) })
	// Their back ends are dom0's own; what the guest says to them is not held.
	for _, index := range []uint32{abi.HVMParamStoreEvtchn, abi.HVMParamConsoleEvtchn} {
		port, err := s.cfg.Host.Ctl.GetHVMParam(s.cfg.Dom, index)
		if err != nil {
			return err
		}
		if port != 0 {
			if err := s.op.Tap(abi.Port(port), kemariop.TapPass); err != nil {
				return err
			}
		}
	}
	s.store, err = newStoreView(s.cfg.Host.Store, s.cfg.Dom)
	return err
}

// wait turns Xen's notifications into triggers.
func (s *Session) wait(h *evtchn.Handle, port abi.Port) {
	var buf [16]abi.Port
	for {
		n, err := h.Wait(buf[:])
		if err != nil && !errors.Is(err, evtchn.ErrOverflow) {
			return // closed
		}
		if err := h.Unmask(append(buf[:n], port)...); err != nil {
			return
		}
		s.Sync()
	}
}

// enable turns Kemari on for the domain and maps it.
func (s *Session) enable() error {
	h := s.cfg.Host
	pages := uint32(h.Config.DirtyPages)
	c, status, err := NewCapture(s.op, h.Memory, h.Ctl, kemariop.EnableParams{
		Role: kemariop.RolePrimary, DirtyMax: pages, DirtyMark: pages / 4 * 3,
	})
	if err != nil {
		return err
	}
	s.capture = c
	return s.begin(status)
}

// adopt takes up what an earlier daemon has left.
func (s *Session) adopt() error {
	if info, err := s.cfg.Host.Ctl.DomainInfo(s.cfg.Dom); err != nil || info.UUID != [16]byte(s.cfg.Guest) {
		s.dead = true
		if err := s.start(); err != nil || s.machine.Record().Phase == lease.HandedOver {
			return err
		}
		return s.endGuest(stream.ReasonDestroyed)
	}
	status, err := s.op.Status()
	if err != nil {
		return err
	}
	if status.Role == kemariop.RolePrimary {
		if s.capture, err = AdoptCapture(s.op, s.cfg.Host.Memory, s.cfg.Host.Ctl, status); err != nil {
			return err
		}
		if err := s.begin(status); err != nil {
			return err
		}
		s.xen = s.capture.Shared().LastSync()
		s.frozen = status.Is(kemariop.StateHarvested)
		s.freeze()
		if err := s.cfg.Disks.Recovered(s.ctx); err != nil {
			return err
		}
		if !s.frozen {
			s.thaw()
		}
		if status.Is(kemariop.StateTriggered) {
			s.wanted = true
		}
	} else if s.machine.Record().Phase == lease.Protecting {
		return fmt.Errorf("%s: Xen does not hold the guest's output, although %s says that it is protected; "+
			"was it created anew behind kemarid's back?", host.Guest(s.cfg.Name, s.cfg.Guest), s.cfg.Host.Records.Dir)
	}
	if err := s.start(); err != nil {
		return err
	}
	return s.lookAtDomain()
}

// start does what the machine does first after a restart.
func (s *Session) start() error {
	for _, a := range s.machine.Start() {
		if err := s.act(a); err != nil {
			return err
		}
	}
	rec := s.machine.Record()
	s.pulse.Arm(rec.Phase == lease.Protecting)
	s.status.note(rec, s.machine.Waiting())
	s.resetTimer()
	return nil
}
