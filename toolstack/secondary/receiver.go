// SPDX-License-Identifier: Apache-2.0

package secondary

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"

	"github.com/google/uuid"
	"github.com/kemari-ft/kemari/toolstack/host"
	"github.com/kemari-ft/kemari/toolstack/lease"
	"github.com/kemari-ft/kemari/toolstack/link"
	"github.com/kemari-ft/kemari/toolstack/replica"
	"github.com/kemari-ft/kemari/toolstack/shell"
	"github.com/kemari-ft/kemari/toolstack/shell/xlstream"
	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/kemariop"
)

// Config is what a receiver is about.
type Config struct {
	Host   *host.Host
	Guest  uuid.UUID
	Record lease.Record
	Disks  Disks
	// Activated is told when the guest runs here.
	Activated func(Activation)
}

// Receiver holds the copy of one guest. One goroutine owns it.
type Receiver struct {
	cfg     Config
	log     host.Log
	machine *replica.Secondary

	events  chan any
	done    chan struct{}
	ctx     context.Context
	cancel  context.CancelFunc
	helpers sync.WaitGroup

	// What follows belongs to the owner.
	local   []replica.Event
	conn    *link.Conn
	connID  uint64
	domid   abi.DomID // as the current HELLO has it
	pulse   *link.Pulse
	op      *kemariop.Client
	shell   *Shell
	desc    *shell.Description
	guest   *xlstream.Guest
	apply   chan<- job
	applied sync.WaitGroup // jobs in apply
	nodes   []byte         // xenstore's part as applied; the applier's until applied is zero
	asked   chan<- string  // an operator waits to hear why it is not taken over

	status status
}

// Events for the owner beside replica's. A message's sender waits for done.
type (
	accepted struct {
		conn   *link.Conn
		reader *stream.Reader
		hello  *stream.Hello
	}
	message struct {
		conn uint64
		msg  any
		done chan struct{}
	}
	ended struct {
		conn uint64
		err  error
	}
	failover struct {
		peerIsOff bool
		refused   chan<- string
	}
	look struct{}
	quit struct{}
)

// Limits are what one guest may take of this host.
var Limits = stream.Limits{EpochPages: 1<<20 + stream.MaxAlways, MemoryPages: 1 << 26, MaxGFN: 1 << 27}

// New makes a receiver and starts its goroutine.
func New(cfg Config) *Receiver {
	if cfg.Disks == nil {
		cfg.Disks = noDisks{}
	}
	// Whether a disk is shared is not known before the guest is described,
	// and a lease is not used as a proof yet.
	const sharedDisk = true
	r := &Receiver{
		cfg: cfg, log: cfg.Host.Log,
		machine: replica.NewSecondary(cfg.Guest, sharedDisk, cfg.Record),
		events:  make(chan any, 64), done: make(chan struct{}),
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	go func() {
		defer close(r.done)
		defer r.helpers.Wait()
		defer r.cancel()
		r.status.end(r.run())
		r.drain()
	}()
	return r
}

// Done is closed when the receiver has ended.
func (r *Receiver) Done() <-chan struct{} { return r.done }

// Err says why it ended, nil if as it should.
func (r *Receiver) Err() error { return r.status.failure() }

// Accept gives the receiver a connection over which its primary has said HELLO,
// which fits to this host.
func (r *Receiver) Accept(c *link.Conn, rd *stream.Reader, hello *stream.Hello) {
	select {
	case r.events <- accepted{c, rd, hello}:
	case <-r.ctx.Done():
		c.Close() // its primary calls again
	}
}

// Failover activates the copy once the peer is fenced, or at once if the
// operator knows it to be off. It returns where the reason is sent if that comes
// to nothing.
func (r *Receiver) Failover(peerIsOff bool) <-chan string {
	refused := make(chan string, 1)
	r.post(failover{peerIsOff, refused})
	return refused
}

// Look makes the receiver look whether its shell still is there.
func (r *Receiver) Look() { r.post(look{}) }

// Stop ends the receiver. What it held can never be activated any more.
func (r *Receiver) Stop() {
	r.post(quit{})
	<-r.done
}

func (r *Receiver) post(ev any) {
	select {
	case r.events <- ev:
	case <-r.done:
	case <-r.ctx.Done():
	}
}

func (r *Receiver) run() (err error) {
	var second func() uint64
	if r.cfg.Host.Second != nil {
		second = r.cfg.Host.Second.Heard
	}
	r.pulse, err = link.NewPulse(r.cfg.Host.Timing(), second, func(v lease.Verdict) { r.post(replica.PeerJudged{Verdict: v}) })
	if err != nil {
		return err
	}
	defer r.closeAll()
	r.note()
	for err == nil && !r.over() {
		ev := <-r.events
		if _, stop := ev.(quit); stop {
			return nil
		}
		err = r.handle(ev)
	}
	return err
}

// drain closes connections that came too late.
func (r *Receiver) drain() {
	for {
		select {
		case ev := <-r.events:
			if a, ok := ev.(accepted); ok {
				a.conn.Close()
			}
		default:
			return
		}
	}
}

// over: the guest runs here, and is a matter of the primary's role now.
func (r *Receiver) over() bool { return r.status.activated() }

func (r *Receiver) handle(ev any) error {
	switch ev := ev.(type) {
	case accepted:
		return r.accept(ev)
	case message:
		defer close(ev.done)
		if ev.conn == r.connID {
			return r.received(ev.msg)
		}
		if e, ok := ev.msg.(*stream.Epoch); ok {
			e.Release()
		}
	case ended:
		if ev.conn == r.connID {
			r.hangup()
		}
		if err := r.step(ending(ev)); err != nil {
			return err
		}
		if ev.conn == r.connID && r.shell != nil && !r.machine.Image().Whole {
			// What has come of the first copy is of no use: a primary
			// that comes back begins anew.
			return r.shellFailed(errNotYet)
		}
		return nil
	case look:
		return r.lookAtShell()
	case failover:
		r.asked = ev.refused
		if ev.peerIsOff {
			return r.step(replica.PeerIsOff{})
		}
		return r.step(replica.PeerJudged{Verdict: lease.Dead})
	case replica.Event:
		return r.step(ev)
	}
	return nil
}

// ending says how a stream has ended: where one may, or not.
func ending(ev ended) replica.Event {
	for _, broken := range []error{stream.ErrTorn, stream.ErrCorrupt, stream.ErrSequence, stream.ErrLimit, stream.ErrUnsupported} {
		if errors.Is(ev.err, broken) {
			return replica.StreamDropped{Conn: ev.conn, Err: ev.err}
		}
	}
	return replica.Disconnected{Conn: ev.conn, Err: ev.err}
}

// accept begins with a new connection.
func (r *Receiver) accept(ev accepted) error {
	r.hangup()
	r.connID++
	r.conn, r.domid = ev.conn, ev.hello.DomID
	if err := r.conn.Trust(); err != nil {
		r.conn.Close()
		return nil
	}
	if err := r.step(replica.PeerHello{Conn: r.connID, Hello: ev.hello}); err != nil || r.conn == nil {
		return err
	}
	if img := r.machine.Image(); img.Whole && img.Generation == ev.hello.Generation {
		ev.reader.Resume(r.machine.Shell(), img.Acked)
	}
	id := r.connID
	r.helpers.Go(func() {
		err := link.Messages(r.ctx, ev.reader, func(msg any) bool {
			if _, beat := msg.(stream.Heartbeat); beat {
				return true
			}
			m := message{id, msg, make(chan struct{})}
			r.post(m)
			select {
			case <-m.done:
				return true
			case <-r.ctx.Done():
				return false
			}
		})
		r.post(ended{id, err})
	})
	return nil
}

func (r *Receiver) received(msg any) error {
	id := r.connID
	switch m := msg.(type) {
	case *stream.Shell:
		return r.step(replica.ShellDescribed{Conn: id, Shell: m})
	case *stream.Batch:
		if r.shell == nil {
			return nil // it failed already
		}
		if err := r.shell.ApplyBatch(m); err != nil {
			return r.shellFailed(err)
		}
	case *stream.Epoch:
		if err := r.judge(m); err != nil {
			m.Release()
			return r.step(replica.StreamDropped{Conn: id, Err: err})
		}
		return r.step(replica.EpochArrived{Conn: id, Epoch: m})
	case stream.Discard:
		return r.step(replica.DiscardAsked{Conn: id, Generation: m.Generation})
	case stream.End:
		return r.step(replica.GuestGone{Conn: id, Generation: m.Generation, Reason: m.Reason})
	case stream.LetGo:
		return r.step(replica.PeerLetGo{Conn: id, Generation: m.Generation, Epoch: m.Epoch})
	case *stream.Refuse:
		r.log.Warn("the primary refuses", r.who("reasons", m.Reasons)...)
		r.conn.Close()
	}
	return nil
}

// shellFailed gives the copy up, and tells the primary's operator why.
func (r *Receiver) shellFailed(err error) error {
	r.log.Error("the shell failed", r.who("error", err)...)
	if conn := r.conn; conn != nil {
		r.conn = nil
		r.pulse.Over(nil, 0)
		r.helpers.Go(func() { conn.Refuse(stream.Refuse{Reasons: strings.Split(err.Error(), "\n")}) })
	}
	r.dropShell()
	if derr := r.destroyShell(); derr != nil {
		r.log.Error("destroying the shell", r.who("error", derr)...)
	}
	return r.step(replica.ShellFailed{Err: err})
}

func (r *Receiver) step(ev replica.Event) error {
	r.local = append(r.local, ev)
	for len(r.local) > 0 {
		ev := r.local[0]
		r.local = r.local[1:]
		for _, a := range r.machine.Step(ev) {
			if err := r.act(a); err != nil {
				return err
			}
		}
	}
	r.note()
	return nil
}

// lookAtShell: a copy without a domain must not be acknowledged any more, and as
// long as a page is mapped, the domain keeps its memory.
func (r *Receiver) lookAtShell() error {
	if r.shell == nil || r.machine.Deciding() {
		return nil
	}
	dom := r.guest.DomID
	info, err := r.cfg.Host.Ctl.DomainInfo(dom)
	switch {
	case err != nil && !errors.Is(err, syscall.ESRCH):
		return err
	case err == nil && uuid.UUID(info.UUID) == r.cfg.Guest && !info.Is(abi.DomInfDying):
		return nil
	}
	return r.shellFailed(fmt.Errorf("the domain that held the copy, %s, was destroyed on this host", dom))
}

// errNotYet is why nothing goes on here after the end of a primary.
var errNotYet = errors.New("the guest was not yet protected when its primary fell silent: its first copy had not ended")

func (r *Receiver) note() {
	img := r.machine.Image()
	if r.asked != nil && !r.machine.Deciding() {
		r.asked <- r.Status().Text
		r.asked = nil
	}
	r.pulse.Arm(img.Whole || r.shell != nil)
	r.status.note(img, r.machine.Dropped(), r.name())
}

func (r *Receiver) name() string {
	if r.guest == nil {
		return ""
	}
	return r.guest.Config.Name()
}

func (r *Receiver) who(args ...any) []any {
	return append([]any{"guest", r.name(), "uuid", r.cfg.Guest}, args...)
}

func (r *Receiver) hangup() {
	if r.conn == nil {
		return
	}
	r.pulse.Over(nil, 0)
	r.conn.Close()
	r.conn = nil
}
