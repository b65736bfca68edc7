// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"fmt"

	"github.com/google/uuid"
	"github.com/kemari-ft/kemari/toolstack/lease"
	"github.com/kemari-ft/kemari/toolstack/stream"
)

// Secondary holds the copy of one guest.
type Secondary struct {
	guest      uuid.UUID
	sharedDisk bool

	rec   lease.Record // as on disk
	img   lease.Image
	stage Stage
	shell *stream.Shell // of img

	conn    uint64 // current connection, 0: none
	newest  uint64 // newest connection so far
	offered uint64 // generation in the current connection's HELLO

	fencing uint64 // generation for which a fence command runs, 0: none
	after   Event  // DISCARD or END that came meanwhile

	chosen  bool // acknowledging has stopped (I12)
	last    uint64
	running bool

	dropped uint64
}

// NewSecondary makes the machine for a guest.  rec is the record on disk, the
// zero value if there is none: what an earlier daemon held in memory is gone,
// so that its generation can never be activated any more.
func NewSecondary(guest uuid.UUID, sharedDisk bool, rec lease.Record) *Secondary {
	return &Secondary{guest: guest, sharedDisk: sharedDisk, rec: rec, running: rec.Phase == lease.Running}
}

// Stage is what Activate needs beside the shell.
func (s *Secondary) Stage() *Stage { return &s.stage }

// Shell describes the guest whose image is held, nil without an image.  A
// stream that goes on after Image's Acked needs it (stream.Reader.Resume).
func (s *Secondary) Shell() *stream.Shell { return s.shell }

// Image is what is held.
func (s *Secondary) Image() lease.Image { return s.img }

// Dropped is the number of streams and epochs that were refused as torn,
// corrupt or out of sequence.
func (s *Secondary) Dropped() uint64 { return s.dropped }

// Step takes an event.
func (s *Secondary) Step(ev Event) []Action {
	if conn, ok := connOf(ev); ok && conn != s.conn {
		if e, is := ev.(EpochArrived); is {
			e.Epoch.Release()
		}
		return nil
	}
	switch ev := ev.(type) {
	case PeerHello:
		return s.hello(ev)
	case ShellDescribed:
		return s.describe(ev.Shell)
	case ShellFailed:
		s.img = lease.Image{}
		s.shell = nil
		return []Action{Report{fmt.Sprintf("the copy of generation %d is torn and will never be activated: %v", s.rec.Generation, ev.Err)},
			Hangup{"the copy is torn"}}
	case EpochArrived:
		return s.arrived(ev.Epoch)
	case EpochApplied:
		if ev.Generation == s.img.Generation && ev.Epoch == s.img.Applied+1 {
			s.img.Applied = ev.Epoch
		}
		return s.activate()
	case StreamDropped:
		return s.drop(ev.Err)
	case Disconnected:
		s.conn = 0
		return []Action{Report{"connection lost, waiting for the primary"}}
	case DiscardAsked, GuestGone:
		return s.discard(ev)
	case PeerLetGo:
		if ev.Generation != s.img.Generation || ev.Epoch != s.img.Acked {
			return s.drop(fmt.Errorf("primary lets go at epoch %d of generation %d, the copy is at %d of %d",
				ev.Epoch, ev.Generation, s.img.Acked, s.img.Generation))
		}
		return s.decide(lease.LetGo)
	case PeerLeaseExpired:
		return s.decide(lease.LeaseExpired)
	case PeerJudged:
		return s.judged(ev.Verdict)
	case FenceDone:
		return s.fenced(ev.Err)
	case PeerIsOff:
		return s.decide(lease.Fenced)
	}
	return nil
}

// connOf returns the connection an event came over.  A HELLO brings its own.
func connOf(ev Event) (uint64, bool) {
	switch ev := ev.(type) {
	case Disconnected:
		return ev.Conn, true
	case ShellDescribed:
		return ev.Conn, true
	case EpochArrived:
		return ev.Conn, true
	case StreamDropped:
		return ev.Conn, true
	case DiscardAsked:
		return ev.Conn, true
	case GuestGone:
		return ev.Conn, true
	case PeerLetGo:
		return ev.Conn, true
	case Acked:
		return ev.Conn, true
	case PeerDiscarded:
		return ev.Conn, true
	case PeerRefused:
		return ev.Conn, true
	}
	return 0, false
}

func (s *Secondary) hello(ev PeerHello) []Action {
	if ev.Conn <= s.newest {
		return nil
	}
	s.conn, s.newest, s.offered = ev.Conn, ev.Conn, ev.Hello.Generation
	refuse := func(format string, args ...any) []Action {
		s.offered = 0
		return []Action{SendRefuse{stream.Refuse{TakenOver: s.takenOver(ev.Hello), Reasons: []string{fmt.Sprintf(format, args...)}}}}
	}
	switch g := ev.Hello.Generation; {
	case uuid.UUID(ev.Hello.Guest) != s.guest:
		return refuse("this is about guest %s, not %s", s.guest, uuid.UUID(ev.Hello.Guest))
	case s.running:
		return refuse("guest %s runs here, from epoch %d of generation %d on", s.guest, s.rec.Epoch, s.rec.Generation)
	case s.chosen:
		return refuse("guest %s is being activated here", s.guest)
	case g < s.rec.Generation:
		return refuse("generation %d of guest %s is older than generation %d, which is known here; see AFTER A FAILOVER in kemari(1)", g, s.guest, s.rec.Generation)
	case g == s.rec.Generation && s.rec.Epoch != 0:
		// A primary that nobody told so. What it has is older than what ran here:
		// to agree to its end would let it go on.
		return refuse("guest %s ran here, from epoch %d of generation %d on, and has ended", s.guest, s.rec.Epoch, s.rec.Generation)
	case g > s.rec.Generation && s.img.Whole:
		return refuse("generation %d of guest %s has not been discarded", s.img.Generation, s.guest)
	}
	held := uint64(0)
	if s.img.Whole && s.img.Generation == ev.Hello.Generation {
		held = s.img.Acked
	}
	return []Action{SendHello{Generation: s.rec.Generation, Epoch: held}}
}

// takenOver: the guest of a HELLO goes on here, or went on here before it ended.
func (s *Secondary) takenOver(h *stream.Hello) bool {
	return uuid.UUID(h.Guest) == s.guest && (s.running || s.rec.Epoch != 0) && h.Generation <= s.rec.Generation
}

func (s *Secondary) describe(shell *stream.Shell) []Action {
	if s.chosen || s.offered <= s.rec.Generation {
		return s.drop(fmt.Errorf("generation %d cannot be begun a second time", s.offered))
	}
	s.rec = lease.Record{Guest: s.guest, Role: lease.Secondary, Generation: s.offered, Phase: lease.Copying}
	s.img = lease.Image{Generation: s.offered}
	s.stage, s.shell = Stage{}, shell
	return []Action{Persist{s.rec}, BuildShell{shell}}
}

// arrived stages, acknowledges and applies an epoch.
func (s *Secondary) arrived(e *stream.Epoch) []Action {
	var why error
	switch {
	case !lease.MayAck(s.chosen):
		e.Release()
		return []Action{Hangup{"the guest is being activated here"}}
	case e.Generation != s.img.Generation || e.Generation != s.rec.Generation || e.Number != s.img.Acked+1:
		why = fmt.Errorf("epoch %d of generation %d, expected %d of %d", e.Number, e.Generation, s.img.Acked+1, s.img.Generation)
	case e.Full != (e.Number == 1) || !e.Full && !s.img.Whole:
		why = fmt.Errorf("epoch %d of generation %d does not follow a complete image", e.Number, e.Generation)
	default:
		why = s.stage.check(e)
	}
	if why != nil {
		e.Release()
		return s.drop(why)
	}
	s.stage.take(e)
	s.img.Acked = e.Number
	ack := SendAck{e.Generation, e.Number}
	if e.Full { // its pages have gone into the shell as they came
		e.Release()
		s.img.Whole, s.img.Applied = true, 1
		s.rec.Phase = lease.Protecting
		return []Action{Persist{s.rec}, ack}
	}
	return []Action{ack, Apply{e}}
}

// drop counts and refuses what must not be applied (I7).
func (s *Secondary) drop(why error) []Action {
	s.dropped++
	return []Action{Report{fmt.Sprintf("dropped: %v", why)}, Hangup{why.Error()}}
}

func (s *Secondary) discard(ev Event) []Action {
	var generation uint64
	phase := lease.Gone
	switch ev := ev.(type) {
	case DiscardAsked:
		generation = ev.Generation
	case GuestGone:
		generation = ev.Generation
		// One that reboots goes on at the primary, protected or not.
		if ev.Reason != stream.ReasonReboot {
			phase = lease.Ended
		}
	}
	switch {
	case s.chosen || s.running || generation != s.offered:
		return s.drop(fmt.Errorf("generation %d cannot be discarded any more", generation))
	case s.fencing != 0:
		// The fence may succeed yet.  To give the image away now could
		// leave the guest nowhere.
		s.after = ev
		return nil
	}
	s.rec = lease.Record{Guest: s.guest, Role: lease.Secondary, Generation: generation, Phase: phase}
	s.img, s.stage, s.shell = lease.Image{}, Stage{}, nil
	return []Action{Persist{s.rec}, DestroyShell{}, SendDiscarded{generation}}
}

func (s *Secondary) judged(v lease.Verdict) []Action {
	if s.chosen || s.running || s.fencing != 0 {
		return nil
	}
	switch v {
	case lease.DaemonLost:
		return []Action{Report{"the primary's host answers, its daemon does not: waiting for its restart"}}
	case lease.Degraded:
		return []Action{Report{"the second heartbeat path is silent"}}
	case lease.Alive:
		return []Action{Report{"the peer answers again"}}
	case lease.Dead, lease.Hung:
	default:
		return nil
	}
	if lease.MayActivate(lease.NoProof, s.sharedDisk) {
		return s.decide(lease.NoProof)
	}
	if _, err := lease.Choose(s.img, s.rec); err != nil {
		// Nothing could be activated: no reason to switch a host off.
		return []Action{Report{fmt.Sprintf("primary %v; the guest is not taken over: %v", v, err)}}
	}
	s.fencing = s.rec.Generation
	return []Action{Fence{fmt.Sprintf("primary %v", v)}}
}

// Deciding: whether the guest goes on here is not known yet, or it does.
func (s *Secondary) Deciding() bool { return s.fencing != 0 || s.chosen || s.running }

func (s *Secondary) fenced(err error) []Action {
	generation, after := s.fencing, s.after
	s.fencing, s.after = 0, nil
	switch {
	case generation == 0 || s.chosen:
		return nil
	case err == nil && generation == s.rec.Generation:
		return s.decide(lease.Fenced)
	case err == nil:
		err = fmt.Errorf("it was fenced for generation %d, now there is generation %d", generation, s.rec.Generation)
	}
	actions := []Action{Report{fmt.Sprintf("the guest is not taken over, because the primary could not be fenced: %v", err)}}
	if conn, _ := connOf(after); after != nil && conn == s.conn {
		actions = append(actions, s.discard(after)...)
	}
	return actions
}

// decide chooses the last epoch, if the proof allows it.
func (s *Secondary) decide(p lease.Proof) []Action {
	if s.chosen || s.running {
		return nil
	}
	if !lease.MayActivate(p, s.sharedDisk) {
		return []Action{Report{fmt.Sprintf("the guest is not taken over: %v is no proof for a guest with a shared disk", p)}}
	}
	last, err := lease.Choose(s.img, s.rec)
	if err != nil {
		return []Action{Report{fmt.Sprintf("the guest is lost: %v", err)}}
	}
	s.chosen, s.last = true, last
	return append([]Action{Hangup{"the guest is being activated here"}}, s.activate()...)
}

// activate goes on once the chosen epoch lies in the shell.
func (s *Secondary) activate() []Action {
	if !s.chosen || s.running || s.img.Applied < s.last {
		return nil
	}
	s.running = true
	s.rec.Phase, s.rec.Epoch = lease.Running, s.last
	return []Action{Persist{s.rec}, Activate{s.rec.Generation, s.last}}
}
