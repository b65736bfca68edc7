// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"errors"
	"strings"
	"testing"

	"github.com/kemari-ft/kemari/toolstack/lease"
	"github.com/kemari-ft/kemari/toolstack/stream"
	"pgregory.net/rapid"
)

// ops is everything that can happen, and when.  The weight says how often it
// is tried: messages and actions must get far for the rest to matter.
var ops = []struct {
	name   string
	weight int
	may    func(*world) bool
	do     func(*world)
}{
	{"primary acts", 12, func(w *world) bool { return len(w.pTodo) > 0 }, (*world).runP},
	{"secondary acts", 12, func(w *world) bool { return len(w.sTodo) > 0 }, (*world).runS},
	{"to secondary", 10, func(w *world) bool { return len(w.toS) > 0 && !w.cut && w.s != nil && onlyApply(w.sTodo) }, (*world).deliverS},
	{"to primary", 10, func(w *world) bool { return len(w.toP) > 0 && !w.cut && w.p != nil }, (*world).deliverP},
	{"connect", 8, func(w *world) bool { return w.wantConn && !w.cut && w.p != nil && w.s != nil && !w.connected }, (*world).connect},
	{"protect", 4, func(w *world) bool { return w.p != nil && w.guest && len(w.pTodo) == 0 }, func(w *world) { w.stepP(Protect{}) }},
	{"output", 8, canRun, output},
	{"copy ends", 4, func(w *world) bool { return canRun(w) && w.copying }, lastRound},
	{"connection breaks", 1, func(w *world) bool { return w.connected }, (*world).hangup},
	{"primary notices", 3, func(w *world) bool { return w.p != nil && !w.connected && w.pConn != 0 }, func(w *world) {
		conn := w.pConn
		w.pConn = 0
		w.stepP(Disconnected{conn, errors.New("reset")})
	}},
	{"secondary notices", 2, func(w *world) bool { return w.s != nil && !w.connected && w.s.conn != 0 }, func(w *world) { w.stepS(Disconnected{w.s.conn, errors.New("reset")}) }},
	{"torn stream", 1, func(w *world) bool { return w.connected && w.s != nil && w.s.conn != 0 }, func(w *world) {
		w.toS = nil
		w.stepS(StreamDropped{w.s.conn, stream.ErrTorn})
	}},
	{"partition", 1, always, func(w *world) { w.cut = !w.cut }},
	{"primary crashes", 1, func(w *world) bool { return w.p != nil }, (*world).crashP},
	{"primary restarts", 4, func(w *world) bool { return w.p == nil && w.pHost && (w.guest || w.pRec.Phase == lease.HandedOver) }, (*world).restartP},
	{"secondary crashes", 1, func(w *world) bool { return w.s != nil }, (*world).crashS},
	{"secondary restarts", 4, func(w *world) bool { return w.s == nil && w.sHost }, (*world).restartS},
	{"secondary boots", 1, func(w *world) bool { return !w.sHost }, func(w *world) { w.sHost = true }},
	{"shell fails", 1, func(w *world) bool { return w.s != nil }, func(w *world) { w.stepS(ShellFailed{errors.New("ENOMEM")}) }},
	{"primary suspects", 1, always, func(w *world) { w.stepP(PeerJudged{lease.Dead}) }},
	{"secondary suspects", 1, always, func(w *world) { w.stepS(PeerJudged{lease.Dead}) }},
	{"primary's fence works", 1, func(w *world) bool { return w.pFence }, func(w *world) { w.fenceP(true) }},
	{"primary's fence fails", 2, func(w *world) bool { return w.pFence }, func(w *world) { w.fenceP(false) }},
	{"secondary's fence works", 1, func(w *world) bool { return w.sFence }, func(w *world) { w.fenceS(true) }},
	{"secondary's fence fails", 2, func(w *world) bool { return w.sFence }, func(w *world) { w.fenceS(false) }},
	{"operator knows S to be off", 1, func(w *world) bool { return !w.sHost }, func(w *world) { w.stepP(PeerIsOff{}) }},
	{"operator knows P to be off", 1, func(w *world) bool { return !w.pHost }, func(w *world) { w.stepS(PeerIsOff{}) }},
	{"lease expires", 1, always, func(w *world) { w.stepS(PeerLeaseExpired{}) }},
	{"unprotect", 1, always, func(w *world) { w.stepP(Unprotect{}) }},
	{"resync", 1, always, func(w *world) { w.stepP(Resync{}) }},
	{"hand over", 1, always, func(w *world) { w.stepP(HandOver{}) }},
	{"guest ends", 1, canRun, guestEnds},
	{"power cut", 1, func(w *world) bool { return w.pHost }, (*world).powerCut},
}

// onlyApply: Apply goes on in the background, everything else has ended when
// the next event is taken.
func onlyApply(todo []Action) bool {
	for _, a := range todo {
		if _, ok := a.(Apply); !ok {
			return false
		}
	}
	return true
}

func always(*world) bool { return true }

func canRun(w *world) bool { return w.guest && w.pHost && !w.frozen }

// output is what the guest does all day.
func output(w *world) {
	w.produced++
	switch {
	case w.pRec.Phase == lease.Copying && w.p != nil && w.p.Record().Phase == lease.Copying:
		w.stepP(CopyRound{})
	case w.pRec.Phase == lease.Copying || w.pRec.Phase == lease.Protecting:
		w.frozen = true // the tap pauses, whether there is a daemon or not
		w.stepP(Harvested{})
	default:
		w.released = w.produced
	}
}

func guestEnds(w *world) {
	if w.pRec.Phase != lease.Copying && w.pRec.Phase != lease.Protecting {
		w.guest = false
		return
	}
	w.frozen, w.ended = true, true
	w.stepP(GuestEnded{stream.ReasonPoweroff})
}

func lastRound(w *world) {
	w.produced++
	w.frozen = true
	w.stepP(Harvested{})
}

// TestModel runs both machines through any interleaving of records, actions,
// crashes, restarts, suspicions, fences, partitions and operators, and ends
// each run with the worst: the primary's host is fenced, so that whatever the
// secondary could ever activate, it activates now.
func TestModel(t *testing.T) {
	var activations, handovers, resyncs int
	rapid.Check(t, func(rt *rapid.T) {
		var w *world
		w = newWorld(func(format string, args ...any) {
			rt.Logf("%s", strings.Join(w.log, "\n"))
			rt.Fatalf(format, args...)
		})
		choose := func() {
			var may []int
			for i, op := range ops {
				if op.may(w) {
					for range op.weight {
						may = append(may, i)
					}
				}
			}
			op := ops[rapid.SampledFrom(may).Draw(rt, "op")]
			w.note("-- %s", op.name)
			op.do(w)
		}
		// Most runs start from a protected guest: chance alone seldom gets
		// further.
		if rapid.IntRange(0, 3).Draw(rt, "protected") > 0 {
			w.protectNow()
		}
		for range rapid.IntRange(0, 150).Draw(rt, "steps") {
			choose()
		}
		if rapid.Bool().Draw(rt, "heal") {
			w.heal()
		}
		w.settle()
		if w.sGuest {
			activations++
		}
		if w.pRec.Phase == lease.HandedOver {
			handovers++
		}
		if w.pRec.Generation > 1 {
			resyncs++
		}
	})
	t.Logf("%d runs ended with an activation, %d with a handover, %d used several generations", activations, handovers, resyncs)
	if activations == 0 {
		t.Error("no run activated anything")
	}
}

// protectNow brings the guest to where epoch 1 is acknowledged.
func (w *world) protectNow() {
	w.stepP(Protect{})
	w.drain()
	lastRound(w)
	w.drain()
	if !w.s.Image().Whole || w.frozen {
		w.fail("protection does not come about")
	}
}

// drain lets everything happen that needs no fault.
func (w *world) drain() {
	for steps := 0; ; {
		progress := false
		for _, op := range ops[:5] {
			for op.may(w) {
				op.do(w)
				progress = true
				if steps++; steps > 1000 {
					w.fail("no end of it")
				}
			}
		}
		if !progress {
			return
		}
	}
}

// heal repairs everything, and then nothing may be stuck: a guest that still
// exists on the primary runs there.
func (w *world) heal() {
	w.note("-- heal")
	w.cut, w.sHost = false, true
	for range 20 {
		if w.p == nil && w.pHost && (w.guest || w.pRec.Phase == lease.HandedOver) {
			w.restartP()
		}
		if w.ended { // Xen still says so
			w.stepP(GuestEnded{stream.ReasonPoweroff})
		}
		if w.s == nil {
			w.restartS()
		}
		if w.pFence {
			w.fenceP(false)
		}
		if w.sFence {
			w.fenceS(false)
		}
		for _, op := range ops {
			if strings.HasSuffix(op.name, "notices") && op.may(w) {
				op.do(w)
			}
		}
		w.drain()
	}
	if w.guest && w.frozen {
		w.fail("the guest is stuck: %s", w.p.Waiting())
	}
}

// settle lets the secondary finish, then cuts the primary off for good.
func (w *world) settle() {
	w.note("-- settle")
	w.cut = true
	for w.s != nil && len(w.sTodo) > 0 {
		w.runS()
	}
	w.stepS(PeerJudged{lease.Dead})
	for w.s != nil && len(w.sTodo) > 0 {
		w.runS()
	}
	if w.sFence {
		w.fenceS(true)
	}
	for w.s != nil && len(w.sTodo) > 0 {
		w.runS()
	}
}

// TestProgress: without faults the guest is protected, its output leaves, and
// a power cut is survived with all of it.
func TestProgress(t *testing.T) {
	w := newWorld(t.Fatalf)
	w.protectNow()
	for range 5 {
		output(w)
		w.drain()
		if w.released != w.produced || w.frozen {
			t.Fatalf("output %d of %d released", w.released, w.produced)
		}
	}
	output(w) // in flight
	w.powerCut()
	w.settle()
	if !w.sGuest {
		w.history(t)
		t.Fatal("the guest was not taken over")
	}
}

// TestRestartedSecondary: protection comes back by itself, in a new generation.
func TestRestartedSecondary(t *testing.T) {
	w := newWorld(t.Fatalf)
	w.protectNow()
	w.crashS()
	output(w)
	if w.released == w.produced {
		t.Fatal("output left without an acknowledgement")
	}
	w.heal()
	if w.released != w.produced || w.pRec.Phase != lease.Copying {
		t.Fatalf("output %d of %d released, %+v", w.released, w.produced, w.pRec)
	}
	lastRound(w)
	w.drain()
	if w.frozen || w.pRec.Generation != 2 || !w.s.Image().Whole {
		w.history(t)
		t.Fatalf("not protected again: %+v", w.pRec)
	}
}

// TestHandOver: a planned switchover loses nothing and needs no fence.
func TestHandOver(t *testing.T) {
	w := newWorld(t.Fatalf)
	w.protectNow()
	output(w)
	w.drain()
	w.stepP(HandOver{})
	w.heal()
	if !w.sGuest || w.guest || !w.pHost {
		w.history(t)
		t.Fatalf("activated: %v, still on the primary: %v", w.sGuest, w.guest)
	}
}

// TestUnprotect: the guest goes on, and the copy is gone.
func TestUnprotect(t *testing.T) {
	w := newWorld(t.Fatalf)
	w.protectNow()
	w.cut = true
	w.stepP(Unprotect{})
	output(w)
	w.drain()
	if w.released == w.produced {
		t.Fatal("output left although the secondary could not answer")
	}
	w.heal()
	if w.released != w.produced || w.frozen || w.s.Image().Whole || w.sRec.Phase != lease.Gone {
		w.history(t)
		t.Fatalf("output %d of %d released, secondary %+v", w.released, w.produced, w.sRec)
	}
}
