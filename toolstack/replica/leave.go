// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"fmt"

	"github.com/kemari-ft/kemari/toolstack/lease"
)

// giveUp ends a first copy that will not be completed.
func (p *Primary) giveUp() []Action {
	if p.aim == keepOn || p.aim == toHandOver {
		p.aim = toUnprotect
	}
	return p.left(lease.NeverWhole)
}

// leave begins to end this generation.
func (p *Primary) leave(how aim) []Action {
	switch {
	case !p.protected() || p.aim == toBeFollowed,
		p.aim == toEnd, p.aim == toUnprotect && how == toResync:
		return nil
	case p.rec.Phase == lease.Copying:
		p.aim = how
		return append([]Action{Hangup{"protection ends before the first copy was complete"}}, p.left(lease.NeverWhole)...)
	}
	p.aim = how
	if lease.MayLeave(lease.NoProof) {
		return p.left(lease.NoProof)
	}
	if p.asked {
		return nil // the answer is on its way
	}
	if p.conn != 0 && p.agreed {
		return p.sendLeave()
	}
	return []Action{Report{"protection ends when the secondary has discarded its copy, or is fenced"}}
}

func (p *Primary) sendLeave() []Action {
	p.asked = true
	if p.aim == toEnd {
		return []Action{SendEnd{p.rec.Generation, p.reason}}
	}
	return []Action{SendDiscard{p.rec.Generation}}
}

// left ends this generation: the secondary cannot activate it any more.
func (p *Primary) left(proof lease.Proof) []Action {
	if !lease.MayLeave(proof) {
		return []Action{Report{fmt.Sprintf("output stays held: %v does not show that the secondary cannot take over", proof)}}
	}
	how := p.aim
	p.aim, p.pending, p.resumed, p.conn = keepOn, 0, false, 0
	p.rec.Phase = lease.Unprotected
	if how == toEnd {
		p.rec.Phase = lease.Ended
	}
	actions := []Action{Persist{p.rec}, Hangup{"protection has ended"}, ReleaseAll{proof.String()}}
	if how == toResync {
		actions = append(actions, p.protect(p.rec.Peer)...)
	}
	return actions
}

func (p *Primary) judged(v lease.Verdict) []Action {
	switch {
	case p.rec.Phase != lease.Protecting || p.fencing != 0:
		return nil
	case v == lease.Dead || v == lease.Hung:
		p.fencing = p.rec.Generation
		return []Action{Fence{fmt.Sprintf("secondary %v", v)}}
	case v == lease.DaemonLost:
		return []Action{Report{"the secondary's host answers, its daemon does not: waiting for its restart"}}
	case v == lease.Degraded:
		return []Action{Report{"the second heartbeat path is silent"}}
	case v == lease.Alive:
		return []Action{Report{"the peer answers again"}}
	}
	return nil
}

func (p *Primary) fenced(err error) []Action {
	generation := p.fencing
	p.fencing = 0
	switch {
	case p.rec.Phase != lease.Protecting || generation != p.rec.Generation:
		return nil
	case err != nil:
		return []Action{Report{fmt.Sprintf("output stays held: the secondary could not be fenced: %v", err)}}
	}
	if p.aim == keepOn || p.aim == toHandOver {
		p.aim = toUnprotect
	}
	return p.left(lease.Fenced)
}
