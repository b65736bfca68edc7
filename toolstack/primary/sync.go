// SPDX-License-Identifier: Apache-2.0

package primary

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/kemari-ft/kemari/toolstack/lease"
	"github.com/kemari-ft/kemari/toolstack/replica"
	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/toolstack/xsreplica"
	"github.com/kemari-ft/kemari/xen/kemariop"
)

// What Xen answers about a domain that is no more.
const (
	errNoDomain = syscall.ESRCH
	errDying    = syscall.EINVAL
)

// again is after how long a sync is tried again that could not be made: a
// processor is being started, or a conversation with xenstored is under way.
const again = time.Millisecond

// reason says why a sync is made.
type reason string

const (
	reasonEvent reason = "event"
	reasonTimer reason = "timer"
)

type refusal []string

func (r refusal) Error() string { return "the secondary refuses: " + strings.Join(r, "; ") }

// sync makes an epoch, unless there is nothing to make one for.
func (s *Session) sync(why reason) error {
	switch {
	case s.capture == nil || s.frozen || s.dead || s.machine.Record().Phase != lease.Protecting:
		return nil
	case !s.ready:
		// Xen has paused the guest if it had output. If not, let it run.
		s.wanted = s.wanted || why == reasonEvent
		return nil
	}
	s.measure.begin(why)
	s.freeze()
	if _, err := s.op.Sync(false); err != nil {
		s.thaw()
		return s.notSynced(why, err)
	}
	s.measure.frozen()
	if s.justReads(why) {
		s.cfg.Disks.Rearm()
		s.status.reads()
		return s.release()
	}
	busy, err := s.store.look(s.capture.Fixed(stream.AlwaysStore))
	if err != nil {
		return err
	}
	if busy != "" {
		// The guest has to run to end its conversation. What it has put
		// into the rings waits at the gates.
		s.log.Debug("sync put off", s.who("xenstore", busy)...)
		s.status.putOff(string(busy))
		if err := s.release(); err != nil {
			return err
		}
		s.retry(why)
		return nil
	}
	s.measure.mark(&s.measure.now.Look)
	return s.harvest()
}

// justReads: the guest asks for nothing that has an effect outside of it.
func (s *Session) justReads(why reason) bool {
	if why != reasonEvent {
		return false
	}
	cause, _ := s.capture.Shared().Trigger()
	return cause == kemariop.TriggerEvent && !s.cfg.Disks.HasOutput()
}

// harvest closes the epoch of the frozen guest.
func (s *Session) harvest() error {
	nodes, err := s.store.state(false)
	if err != nil {
		return s.unprotectable(err)
	}
	s.measure.mark(&s.measure.now.Store)
	if s.xen, err = s.op.Sync(true); err != nil {
		return err
	}
	s.frozen, s.nodes = true, nodes
	if s.xen.Flags&kemariop.SyncLost != 0 {
		s.log.Warn("Xen has lost count of the guest's pages; all of memory is sent again", s.who()...)
		return s.step(replica.Resync{})
	}
	if err := s.captureRings(); err != nil {
		return err
	}
	s.measure.mark(&s.measure.now.Harvest)
	return s.step(replica.Harvested{})
}

// unprotectable ends the protection of a frozen guest of which no epoch can be made, if
// that is its own doing: it would be so at each further try. It stays frozen until the
// secondary has discarded its copy.
func (s *Session) unprotectable(err error) error {
	if !errors.Is(err, xsreplica.ErrContent) {
		return err
	}
	s.log.Error("the guest cannot be protected any more", s.who("error", err)...)
	s.status.say(fmt.Sprintf("the guest cannot be protected any more: %v", err))
	return s.step(replica.Unprotect{})
}

func (s *Session) captureRings() error {
	rings, refs := s.cfg.Disks.Capture()
	s.rings = rings
	s.capture.SetStore(s.store.image[:])
	return s.capture.SetRings(refs)
}

// notSynced deals with a refusal of Xen's.
func (s *Session) notSynced(why reason, err error) error {
	if errors.Is(err, syscall.EAGAIN) {
		s.retry(why)
		return nil
	}
	if lookErr := s.lookAtDomain(); lookErr != nil {
		return errors.Join(err, lookErr)
	}
	if s.dead {
		return nil
	}
	return err
}

func (s *Session) retry(why reason) {
	s.why = why
	s.timer.Reset(again)
}

func (s *Session) resetTimer() {
	s.why = reasonTimer
	s.timer.Reset(s.cfg.Interval)
}

// namePages spares the guest faults, if it can.
func (s *Session) namePages() error {
	err := s.capture.NamePages()
	if err == nil {
		return nil
	}
	if lookErr := s.lookAtDomain(); lookErr != nil || s.dead {
		return lookErr
	}
	s.log.Warn("the guest takes more page faults than it need", s.who("error", err)...)
	return nil
}

// harvestNow is a sync that the machine asks for: after a restart of the
// daemon, or to hand the guest over.
func (s *Session) harvestNow() error {
	if s.frozen { // by the daemon before this one
		s.measure.begin(reasonEvent)
		s.measure.frozen()
		s.freeze()
		s.nodes = nil
		if busy := s.store.lookAgain(s.capture.Fixed(stream.AlwaysStore)); busy != "" {
			// No daemon harvests such a guest. An image with half a
			// request in it must not replace the secondary's good one.
			s.log.Warn("a guest was left frozen amid a conversation with xenstored; all of memory is sent again", s.who("xenstore", busy)...)
			s.local = append(s.local, replica.Resync{})
			return nil
		}
		nodes, err := s.store.state(true)
		if err != nil {
			return s.unprotectable(err)
		}
		s.nodes = nodes
		if err := s.captureRings(); err != nil {
			return err
		}
		s.measure.mark(&s.measure.now.Harvest)
		s.local = append(s.local, replica.Harvested{})
		return nil
	}
	return s.sync(reasonTimer)
}

// sending is how often an epoch was sent.
type sending struct {
	generation, epoch uint64
	times             int
}

// mostSends is how often an epoch is sent before all of memory is sent anew: there may
// be something in it that no secondary takes.
const mostSends = 8

// sendEpoch sends what was harvested.
func (s *Session) sendEpoch(a replica.SendEpoch) error {
	if s.tried.generation != a.Generation || s.tried.epoch != a.Epoch {
		s.tried = sending{generation: a.Generation, epoch: a.Epoch}
	}
	if s.tried.times++; s.tried.times > mostSends {
		s.log.Warn("an epoch was sent again and again, and never acknowledged; all of memory is sent", s.who("epoch", a.Epoch, "times", mostSends)...)
		return s.step(replica.Resync{})
	}
	s.measure.now.Epoch = a.Epoch
	spent := s.conn.Spent()
	var sent stream.Sent
	var err error
	if a.Full && s.copying == a.Generation {
		sent, err = s.capture.LastRound(s.conn.Writer, s.xen, s.unsent, s.rings, s.nodes)
		s.copying, s.unsent = 0, nil
	} else {
		sent, err = s.capture.Epoch(s.conn.Writer, a.Generation, a.Epoch, s.xen, a.Full, s.rings, s.nodes)
	}
	s.measure.sent(s.capture, s.xen, sent, s.conn.Spent()-spent)
	if err == nil {
		return nil
	}
	if errors.Is(err, ErrLost) {
		return s.step(replica.Resync{})
	}
	if errors.Is(err, ErrForeignGrants) {
		// As with event channels, of which Xen tells as LOST: the generation
		// ends by the book (I13), and the next first copy refuses the guest
		// unless it has thought better of it.
		s.log.Error("protection ends", s.who("error", err)...)
		s.status.say("protection ends: " + err.Error())
		return s.step(replica.Resync{})
	}
	s.log.Warn("an epoch could not be sent", s.who("epoch", a.Epoch, "error", err)...)
	if broken := new(net.OpError); !errors.As(err, &broken) {
		// Of its own accord the secondary would wait for the rest.
		s.broken()
	}
	// Otherwise its reader tells the end, and before that what the secondary said last.
	return nil
}

// commit lets go what the secondary has acknowledged.
func (s *Session) commit(epoch uint64) error {
	s.measure.mark(&s.measure.now.Ack)
	if s.dead {
		return nil
	}
	if err := s.cfg.Disks.Commit(); err != nil {
		return fmt.Errorf("epoch %d: %w", epoch, err)
	}
	s.capture.Committed()
	if err := s.release(); err != nil {
		return s.notSynced(reasonTimer, err)
	}
	s.measure.mark(&s.measure.now.Release)
	s.status.synced(s.measure.end())
	s.resetTimer()
	return s.namePages()
}
