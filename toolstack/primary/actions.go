// SPDX-License-Identifier: Apache-2.0

package primary

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kemari-ft/kemari/toolstack/lease"
	"github.com/kemari-ft/kemari/toolstack/link"
	"github.com/kemari-ft/kemari/toolstack/replica"
	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/xen/kemariop"
)

// act executes one action. An error ends the session and leaves the guest's
// output held.
func (s *Session) act(a replica.Action) error {
	switch a := a.(type) {
	case replica.Persist:
		return s.cfg.Host.Records.Persist(a.Record)
	case replica.Report:
		s.log.Info(a.Text, s.who()...)
		s.status.say(a.Text)
	case replica.Connect:
		s.connect()
	case replica.Hangup:
		s.log.Debug("hanging up", s.who("why", a.Why)...)
		s.hangup()
	case replica.SendHello:
		hello := s.cfg.Host.Identity.Hello(stream.Primary, s.cfg.Guest, s.cfg.Dom)
		hello.Generation, hello.Epoch = a.Generation, a.Epoch
		if err := s.conn.Hello(hello); err != nil {
			s.broken()
			return nil
		}
		s.pulse.Over(s.conn, a.Generation)
	case replica.StartCopy:
		return s.startCopy(a.Generation)
	case replica.ReleaseRound:
		return s.release()
	case replica.SendEpoch:
		return s.sendEpoch(a)
	case replica.Harvest:
		return s.harvestNow()
	case replica.Release:
		return s.commit(a.Epoch)
	case replica.SendDiscard:
		s.tell(s.conn.Discard(a.Generation))
	case replica.SendEnd:
		s.tell(s.conn.EndGuest(a.Generation, a.Reason))
	case replica.SendLetGo:
		s.tell(s.conn.LetGo(a.Generation, a.Epoch))
	case replica.ReleaseAll:
		return s.releaseAll(a.Why)
	case replica.DestroyGuest:
		return s.destroyGuest()
	case replica.Fence:
		s.helpers.Go(func() {
			err := s.cfg.NoFence
			if err == nil {
				err = s.cfg.Host.Fence(s.ctx, a.Why)
			}
			s.post(replica.FenceDone{Err: err})
		})
	default:
		return fmt.Errorf("action %T is not known to the primary", a)
	}
	return nil
}

// tell closes a connection over which something could not be said. Its reader
// then reports the end.
func (s *Session) tell(err error) {
	if err != nil {
		s.broken()
	}
}

func (s *Session) broken() {
	if s.conn != nil {
		s.conn.Close()
	}
}

func (s *Session) hangup() {
	if s.conn == nil {
		return
	}
	s.pulse.Over(nil, 0)
	s.conn.Close()
	s.conn, s.ready, s.copying = nil, false, 0
}

// How often and how long a secondary is called. A first copy is given up soon,
// for somebody waits for it; a protection never.
const (
	dialTime   = 5 * time.Second
	redialTime = 500 * time.Millisecond
)

func (s *Session) connect() {
	if s.dialing {
		return
	}
	s.dialing = true
	// Who hangs up on everything is not called without a pause.
	wait := time.Duration(0)
	if s.connID > 0 && !s.fruitful {
		wait = redialTime
	}
	s.fruitful = false
	s.helpers.Go(func() {
		select {
		case <-time.After(wait):
		case <-s.ctx.Done():
			return
		}
		for {
			ctx, cancel := context.WithTimeout(s.ctx, dialTime)
			c, err := s.cfg.Peer.Dial(ctx)
			cancel()
			if err == nil {
				s.post(dialed{link.New(c)})
				return
			}
			if s.ctx.Err() != nil {
				return
			}
			s.post(noPeer{err})
			select {
			case <-time.After(redialTime):
			case <-s.ctx.Done():
				return
			}
		}
	})
}

// connected begins a stream over a new connection.
func (s *Session) connected(c *link.Conn) error {
	s.dialing = false
	if s.over() {
		c.Close()
		return nil
	}
	s.hangup()
	s.connID++
	id := s.connID
	s.conn = c
	if s.capture != nil {
		s.capture.Forget()
	}
	if err := c.Expect(); err != nil {
		s.broken()
	}
	s.helpers.Go(func() {
		r := stream.NewReader(c, stream.Secondary, stream.Limits{}, nil)
		err := link.Messages(s.ctx, r, func(msg any) bool {
			s.post(message{id, msg})
			return true
		})
		s.post(ended{id, err})
	})
	return s.step(replica.Connected{Conn: id})
}

// received takes a message of the secondary's.
func (s *Session) received(msg any) error {
	id := s.connID
	switch m := msg.(type) {
	case *stream.Hello:
		if err := s.conn.Trust(); err != nil {
			s.broken()
			return nil
		}
		local := s.cfg.Host.Identity.Hello(stream.Primary, s.cfg.Guest, s.cfg.Dom)
		if reasons := replica.Incompatible(&local, m); len(reasons) > 0 {
			return s.refused(&stream.Refuse{Reasons: reasons})
		}
		s.ready = true
		if err := s.step(replica.PeerHello{Conn: id, Hello: m}); err != nil {
			return err
		}
		if !s.frozen {
			s.resetTimer()
		}
		if s.wanted && s.ready {
			s.wanted = false
			return s.sync(reasonEvent)
		}
		return nil
	case stream.Ack:
		s.fruitful = true
		return s.step(replica.Acked{Conn: id, Generation: m.Generation, Epoch: m.Epoch})
	case stream.Discarded:
		return s.step(replica.PeerDiscarded{Conn: id, Generation: m.Generation})
	case *stream.Refuse:
		if s.machine.Record().Phase == lease.HandedOver && m.TakenOver {
			s.letGo = true
		}
		return s.refused(m)
	}
	return nil // a heartbeat
}

func (s *Session) refused(r *stream.Refuse) error {
	s.status.fail(refusal(r.Reasons))
	return s.step(replica.PeerRefused{Conn: s.connID, TakenOver: r.TakenOver, Reasons: r.Reasons})
}

// releaseAll ends the tap: the guest runs as if nobody had ever watched it.
func (s *Session) releaseAll(why string) error {
	s.log.Info("output is no longer held", s.who("why", why)...)
	s.cfg.Disks.Ungate()
	var err error
	if !s.dead && s.capture != nil {
		if err = s.op.Disable(); errors.Is(err, errNoDomain) || errors.Is(err, errDying) {
			err = nil
		}
	}
	s.thaw()
	s.frozen = false
	s.closeCapture()
	return err
}

// destroyGuest destroys the guest in favour of the secondary. What was
// committed and is in work still goes to the disks before it returns.
func (s *Session) destroyGuest() error {
	s.dead = true
	s.closeCapture()
	s.thaw()
	err := s.cfg.Disks.Close()
	info, e := s.cfg.Host.Ctl.DomainInfo(s.cfg.Dom)
	switch {
	case errors.Is(e, errNoDomain) || e == nil && info.UUID != [16]byte(s.cfg.Guest):
		return err // an earlier daemon did it
	case e != nil:
		return errors.Join(err, e)
	}
	return errors.Join(err, s.cfg.Host.Tools.Destroy(s.ctx, s.cfg.Dom))
}

func (s *Session) freeze() {
	if !s.stopped {
		s.cfg.Disks.Freeze()
		s.stopped = true
	}
}

func (s *Session) thaw() {
	if s.stopped {
		s.cfg.Disks.Thaw()
		s.stopped = false
	}
}

// release lets the frozen guest run and its output go.
func (s *Session) release() error {
	err := s.op.Release(s.xen.Epoch, kemariop.ReleaseOut|kemariop.ReleaseUnpause)
	s.frozen = false
	s.thaw()
	return err
}
