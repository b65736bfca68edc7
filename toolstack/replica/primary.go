// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/kemari-ft/kemari/toolstack/lease"
	"github.com/kemari-ft/kemari/toolstack/stream"
)

// aim is what a primary wants beyond going on.
type aim int

const (
	keepOn       aim = iota
	toUnprotect      // end the protection, the guest goes on
	toResync         // end this generation, begin the next
	toEnd            // the guest has ended
	toHandOver       // the guest shall go on at the secondary
	toBeFollowed     // handed over: the guest is destroyed here
)

// Primary runs one guest.
//
// It commits classically: at most one epoch is unacknowledged, and the guest
// is frozen meanwhile.  An asynchronous commit would release the pause where
// SendEpoch is returned, and the output where Release is.
type Primary struct {
	guest uuid.UUID
	rec   lease.Record // as on disk

	conn   uint64 // current connection, 0: none
	newest uint64 // newest connection so far
	agreed bool   // the peer's HELLO has come over it
	asked  bool   // DISCARD or END has been sent over it

	acked   uint64 // newest epoch known to be acknowledged
	pending uint64 // epoch sent or to be sent, not acknowledged; 0: none
	resumed bool   // this daemon has not seen what an earlier one sent

	aim     aim
	reason  stream.Reason // for toEnd
	fencing uint64        // generation for which a fence command runs, 0: none
}

// NewPrimary makes the machine for a guest that exists on this host.  rec is
// the record on disk, the zero value if there is none.
func NewPrimary(guest uuid.UUID, rec lease.Record) *Primary {
	if rec.Role == lease.Secondary {
		// The copy has become the guest.  That it may run here was decided
		// before anyone made a Primary for it (I14).
		rec.Phase = lease.Running
	}
	p := &Primary{guest: guest, rec: rec}
	p.resumed = rec.Phase == lease.Protecting
	if rec.Phase == lease.HandedOver {
		p.aim, p.acked = toBeFollowed, rec.Epoch
	}
	return p
}

// Start is called once, after NewPrimary: what a restarted daemon has to do.
func (p *Primary) Start() []Action {
	switch p.rec.Phase {
	case lease.Protecting:
		return []Action{Connect{}}
	case lease.HandedOver:
		return []Action{DestroyGuest{}, Connect{}}
	case lease.Copying:
		return p.left(lease.NeverWhole)
	case lease.Unprotected, lease.Ended:
		// An earlier daemon had the proof, and may have died before it used it.
		return []Action{ReleaseAll{"protection had ended"}}
	}
	return nil
}

// Record is the record on disk.
func (p *Primary) Record() lease.Record { return p.rec }

// Waiting says whether output is held, and for what.
func (p *Primary) Waiting() string {
	switch {
	case p.rec.Phase != lease.Protecting:
		return ""
	case p.pending != 0 && p.conn == 0:
		return fmt.Sprintf("output is held: epoch %d is not acknowledged and there is no connection", p.pending)
	case p.pending != 0:
		return fmt.Sprintf("output is held: epoch %d is not acknowledged", p.pending)
	case p.conn == 0:
		return "no connection to the secondary"
	}
	return ""
}

// Step takes an event.
func (p *Primary) Step(ev Event) []Action {
	if conn, ok := connOf(ev); ok && (conn != p.conn || p.conn == 0) {
		return nil
	}
	switch ev := ev.(type) {
	case Protect:
		return p.protect(ev.Peer)
	case Connected:
		if ev.Conn <= p.newest || !p.protected() && p.rec.Phase != lease.HandedOver {
			return []Action{Hangup{"no longer wanted"}}
		}
		p.conn, p.newest, p.agreed, p.asked = ev.Conn, ev.Conn, false, false
		return []Action{SendHello{Generation: p.rec.Generation}}
	case PeerHello:
		if ev.Conn != p.conn || p.agreed {
			return nil
		}
		p.agreed = true
		return p.hello(ev.Hello)
	case PeerRefused:
		return p.refused(ev.Reasons, ev.TakenOver)
	case Disconnected:
		return p.disconnected(ev.Err)
	case CopyRound:
		if p.rec.Phase == lease.Copying {
			return []Action{ReleaseRound{}}
		}
	case Harvested:
		return p.harvested()
	case Acked:
		return p.ack(ev.Generation, ev.Epoch)
	case PeerDiscarded:
		if ev.Generation == p.rec.Generation && p.leaving() {
			return p.left(lease.Discarded)
		}
	case PeerJudged:
		return p.judged(ev.Verdict)
	case FenceDone:
		return p.fenced(ev.Err)
	case PeerIsOff:
		p.fencing = p.rec.Generation
		return p.fenced(nil)
	case Unprotect:
		return p.leave(toUnprotect)
	case Resync:
		return p.leave(toResync)
	case GuestEnded:
		p.reason = ev.Reason
		return p.leave(toEnd)
	case HandOver:
		return p.handOver()
	}
	return nil
}

func (p *Primary) handOver() []Action {
	if p.rec.Phase != lease.Protecting || p.aim != keepOn || p.resumed || p.fencing != 0 || p.conn == 0 || !p.agreed {
		return []Action{Report{"there is no complete copy in reach to hand the guest over to"}}
	}
	p.aim = toHandOver
	if p.pending == 0 {
		return []Action{Harvest{}}
	}
	return nil
}

// HandingOver: the guest is on its way to the secondary, or was.
func (p *Primary) HandingOver() bool { return p.aim == toHandOver || p.aim == toBeFollowed }

func (p *Primary) protected() bool {
	return p.rec.Phase == lease.Copying || p.rec.Phase == lease.Protecting
}

func (p *Primary) leaving() bool { return p.aim == toUnprotect || p.aim == toResync || p.aim == toEnd }

func (p *Primary) protect(peer string) []Action {
	if p.protected() || p.aim == toBeFollowed {
		return []Action{Report{"the guest is protected already"}}
	}
	p.rec = lease.Record{Guest: p.guest, Role: lease.Primary, Generation: p.rec.Generation + 1, Phase: lease.Copying, Peer: peer}
	p.acked, p.pending, p.aim, p.resumed = 0, 0, keepOn, false
	return []Action{Persist{p.rec}, Connect{}}
}

// hello goes on where the secondary says that it is.
func (p *Primary) hello(h *stream.Hello) []Action {
	g := p.rec.Generation
	switch {
	case p.aim == toBeFollowed && (h.Generation != g || h.Epoch != p.acked):
		// Its daemon was restarted before it knew that the guest was let go. Nobody
		// has the guest any more, and nobody can come to run it.
		p.aim, p.reason = toEnd, stream.ReasonDestroyed
		return append([]Action{Report{fmt.Sprintf("the guest is lost: it was handed over at epoch %d of generation %d, which the secondary no longer holds", p.acked, g)}},
			p.sendLeave()...)
	case p.aim == toBeFollowed:
		return []Action{SendLetGo{g, p.acked}}
	case p.leaving():
		return p.sendLeave()
	case p.rec.Phase == lease.Copying:
		return []Action{StartCopy{g}}
	case p.untaken() && h.Epoch == 0:
		p.aim = toUnprotect
		return append([]Action{Report{"the first copy did not come whole"}}, p.sendLeave()...)
	case h.Epoch == 0 || h.Generation != g:
		return append([]Action{Report{"the secondary has lost its copy; all of memory is sent again"}}, p.leave(toResync)...)
	case p.resumed:
		// An epoch which an earlier daemon sent may have been acknowledged
		// or not; what it harvested is harvested again with the rest.
		p.acked, p.resumed = h.Epoch, false
		return []Action{Harvest{}}
	case p.pending != 0 && h.Epoch == p.pending:
		return p.ack(g, p.pending) // the acknowledgement itself was lost
	case h.Epoch != p.acked:
		return append([]Action{Report{fmt.Sprintf("the secondary holds epoch %d, epoch %d was acknowledged; all of memory is sent again", h.Epoch, p.acked)}},
			p.leave(toResync)...)
	case p.pending != 0:
		return []Action{SendEpoch{Generation: g, Epoch: p.pending}}
	case p.aim == toHandOver:
		return []Action{Harvest{}}
	}
	return nil
}

// harvested numbers the epoch that the caller has closed.
func (p *Primary) harvested() []Action {
	if !p.protected() || p.pending != 0 || p.resumed || p.aim == toBeFollowed {
		return nil
	}
	ready := p.conn != 0 && p.agreed && !p.asked
	if p.rec.Phase == lease.Copying && !ready {
		return nil
	}
	p.pending = p.acked + 1
	if !ready {
		return nil // sent when the connection is back
	}
	send := SendEpoch{Generation: p.rec.Generation, Epoch: p.pending, Full: p.pending == 1}
	if !send.Full {
		return []Action{send}
	}
	// From the last octet of this epoch on the secondary has a copy that it
	// could activate: the disk must know before.
	p.rec.Phase = lease.Protecting
	return []Action{Persist{p.rec}, send}
}

func (p *Primary) ack(generation, epoch uint64) []Action {
	if generation != p.rec.Generation || p.pending == 0 || epoch != p.pending {
		return []Action{Hangup{fmt.Sprintf("acknowledges epoch %d of generation %d, sent was %d of %d", epoch, generation, p.pending, p.rec.Generation)}}
	}
	p.acked, p.pending = epoch, 0
	switch {
	case p.aim == toHandOver && p.fencing == 0:
		p.aim = toBeFollowed
		p.rec.Phase, p.rec.Epoch = lease.HandedOver, epoch
		return []Action{Persist{p.rec}, DestroyGuest{}, SendLetGo{generation, epoch}}
	case p.aim == toHandOver:
		// A guest given to a host that is being switched off would be lost.
		p.aim = keepOn
		return []Action{Report{"the guest is not handed over, because the secondary is being fenced"}, Release{epoch}}
	default:
		return []Action{Release{epoch}}
	}
}

func (p *Primary) refused(reasons []string, takenOver bool) []Action {
	p.conn = 0
	report := Report{"the secondary refuses: " + strings.Join(reasons, "; ")}
	if p.rec.Phase == lease.Copying {
		return append([]Action{report, Hangup{"refused"}}, p.giveUp()...)
	}
	if p.rec.Phase == lease.HandedOver && takenOver {
		return []Action{report, Hangup{"refused"}}
	}
	if p.untaken() {
		p.aim = toUnprotect // when it is known that there is nothing
	}
	return []Action{report, Hangup{"refused"}, Connect{}}
}

// untaken: all of the first copy was sent, or was to be, and nothing of this generation
// has been acknowledged. Whoever wanted the guest protected waits to hear why it is not,
// and not for another try.
func (p *Primary) untaken() bool {
	return p.rec.Phase == lease.Protecting && p.aim == keepOn && p.acked == 0 && !p.resumed
}

func (p *Primary) disconnected(err error) []Action {
	p.conn = 0
	report := Report{fmt.Sprintf("connection to the secondary lost: %v", err)}
	switch {
	case p.rec.Phase == lease.Copying:
		return append([]Action{report}, p.giveUp()...)
	case p.rec.Phase == lease.Protecting, p.rec.Phase == lease.HandedOver:
		return []Action{report, Connect{}}
	}
	return nil
}
