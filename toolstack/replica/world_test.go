// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/google/uuid"
	"github.com/kemari-ft/kemari/toolstack/lease"
	"github.com/kemari-ft/kemari/toolstack/stream"
)

// world is two hosts, what lies between them, and one guest, which counts its
// outputs.  A guest's whole state is that count: an epoch carries it, and
// whoever activates an epoch sees which outputs it remembers.
type world struct {
	log  []string
	fail func(format string, args ...any)

	p      *Primary // nil: the daemon is down
	pRec   lease.Record
	pHost  bool // has power
	pTodo  []Action
	pConn  uint64 // as the daemon believes
	pFence bool   // fence command of the primary runs

	s      *Secondary
	sRec   lease.Record
	sHost  bool
	sTodo  []Action
	sFence bool

	guest    bool // exists on the primary's host: it may run
	frozen   bool
	ended    bool   // has shut down, and is a frozen domain
	copying  bool   // the first copy has begun
	produced uint64 // outputs of the guest so far
	released uint64 // outputs that the outside has seen
	sGuest   bool   // activated on the secondary's host

	shell    uint64               // contents of the shell
	contents map[[2]uint64]uint64 // by generation and epoch

	cut       bool // nothing passes between the hosts
	connected bool
	conn      uint64
	toS, toP  []any // on the wire
	wantConn  bool
}

var guestID = uuid.UUID{1, 2, 3}

func newWorld(fail func(string, ...any)) *world {
	return &world{
		fail: fail, pHost: true, sHost: true, guest: true, contents: map[[2]uint64]uint64{},
		p: NewPrimary(guestID, lease.Record{}), s: NewSecondary(guestID, true, lease.Record{}),
	}
}

func (w *world) note(format string, args ...any) { w.log = append(w.log, fmt.Sprintf(format, args...)) }

func name(v any) string { return fmt.Sprintf("%T%+v", v, v)[len("replica."):] }

func (w *world) stepP(ev Event) {
	if w.p == nil {
		return
	}
	w.note("P <- %s", name(ev))
	w.pTodo = append(w.pTodo, w.p.Step(ev)...)
}

func (w *world) stepS(ev Event) {
	if w.s == nil {
		return
	}
	switch ev.(type) {
	case EpochArrived:
		w.note("S <- EpochArrived")
	default:
		w.note("S <- %s", name(ev))
	}
	w.sTodo = append(w.sTodo, w.s.Step(ev)...)
}

// runP executes the primary's next action.
func (w *world) runP() {
	a := w.pTodo[0]
	w.pTodo = w.pTodo[1:]
	w.note("P: %s", name(a))
	switch a := a.(type) {
	case Persist:
		w.pRec = a.Record
	case SendHello:
		w.send(&stream.Hello{Role: stream.Primary, Guest: guestID, Generation: a.Generation})
	case Connect:
		w.wantConn = true
	case StartCopy:
		w.send(&stream.Shell{})
		w.copying = true
	case ReleaseRound:
		w.released = w.produced
	case SendEpoch:
		if !w.frozen {
			w.fail("I3: epoch %d sent while the guest runs", a.Epoch)
		}
		w.contents[[2]uint64{a.Generation, a.Epoch}] = w.produced
		w.send(a)
	case Harvest:
		if !w.frozen {
			w.frozen = true
			w.produced++
		}
		w.stepP(Harvested{})
	case Release:
		w.released, w.frozen = w.produced, false
	case ReleaseAll:
		w.released, w.frozen, w.copying = w.produced, false, false
		if w.ended {
			w.guest, w.ended = false, false
		}
	case DestroyGuest:
		w.guest = false
	case SendDiscard, SendEnd, SendLetGo:
		w.send(a)
	case Fence:
		w.pFence = true
	case Hangup:
		w.hangup()
	}
}

// runS executes the secondary's next action.
func (w *world) runS() {
	a := w.sTodo[0]
	w.sTodo = w.sTodo[1:]
	switch a := a.(type) {
	case Apply:
		w.note("S: Apply %d", a.Epoch.Number)
		w.shell = value(a.Epoch)
		ev := EpochApplied{a.Epoch.Generation, a.Epoch.Number}
		a.Epoch.Release()
		w.stepS(ev)
		return
	default:
		w.note("S: %s", name(a))
	}
	switch a := a.(type) {
	case Persist:
		w.sRec = a.Record
	case SendHello, SendRefuse, SendAck, SendDiscarded:
		w.reply(a)
	case BuildShell, DestroyShell:
		w.shell = 0
	case Fence:
		w.sFence = true
	case Hangup:
		w.hangup()
	case Activate:
		w.activated(a)
	}
}

// activated is where a user would notice.
func (w *world) activated(a Activate) {
	w.sGuest = true
	if w.pHost && w.guest {
		w.fail("I8: the guest runs twice")
	}
	have := binary.LittleEndian.Uint64(append(w.s.Stage().State, make([]byte, 8)...))
	want := w.contents[[2]uint64{a.Generation, a.Epoch}]
	if a.Epoch == 0 || have != want || w.shell != want {
		w.fail("I12: activated epoch %d holds %d, the stage %d, the shell %d", a.Epoch, want, have, w.shell)
	}
	if want < w.released {
		w.fail("I12/I13: the outside has seen output %d, the activated guest remembers %d", w.released, want)
	}
}

func (w *world) send(m any) {
	if w.connected && w.p != nil && w.conn == w.pConn {
		w.toS = append(w.toS, m)
	}
}

func (w *world) reply(m any) {
	if w.connected {
		w.toP = append(w.toP, m)
	}
}

func (w *world) hangup() {
	w.connected = false
	w.toS, w.toP = nil, nil
}

func (w *world) connect() {
	w.conn++
	w.connected, w.wantConn, w.copying = true, false, false
	w.toS, w.toP = nil, nil
	w.pConn = w.conn
	w.stepP(Connected{w.conn})
}

// deliverS hands the secondary the next record.
func (w *world) deliverS() {
	m := w.toS[0]
	w.toS = w.toS[1:]
	switch m := m.(type) {
	case *stream.Hello:
		w.stepS(PeerHello{w.conn, m})
	case *stream.Shell:
		w.stepS(ShellDescribed{w.conn, m})
	case SendEpoch:
		if m.Epoch == 1 && w.s != nil && !w.s.Image().Whole {
			w.shell = w.contents[[2]uint64{m.Generation, 1}] // batches go in as they come
		}
		w.stepS(EpochArrived{w.conn, makeEpoch(m, w.contents[[2]uint64{m.Generation, m.Epoch}])})
	case SendDiscard:
		w.stepS(DiscardAsked{w.conn, m.Generation})
	case SendEnd:
		w.stepS(GuestGone{w.conn, m.Generation, m.Reason})
	case SendLetGo:
		w.stepS(PeerLetGo{w.conn, m.Generation, m.Epoch})
	}
}

// deliverP hands the primary the next record.
func (w *world) deliverP() {
	m := w.toP[0]
	w.toP = w.toP[1:]
	switch m := m.(type) {
	case SendHello:
		w.stepP(PeerHello{w.conn, &stream.Hello{Role: stream.Secondary, Guest: guestID, Generation: m.Generation, Epoch: m.Epoch}})
	case SendRefuse:
		w.stepP(PeerRefused{w.conn, m.Refuse.TakenOver, m.Refuse.Reasons})
	case SendAck:
		w.stepP(Acked{w.conn, m.Generation, m.Epoch})
	case SendDiscarded:
		w.stepP(PeerDiscarded{w.conn, m.Generation})
	}
}

var errDown = errors.New("down")

func (w *world) crashP() {
	w.note("P crashes")
	w.p, w.pTodo, w.wantConn, w.pFence = nil, nil, false, false
	w.hangup()
}

func (w *world) crashS() {
	w.note("S crashes")
	w.s, w.sTodo, w.sFence = nil, nil, false
	w.hangup()
}

func (w *world) restartP() {
	w.note("P restarts")
	w.p, w.pConn = NewPrimary(guestID, w.pRec), 0
	w.pTodo = w.p.Start()
}

func (w *world) restartS() {
	w.note("S restarts")
	w.s = NewSecondary(guestID, true, w.sRec)
}

// fenceP is the end of the primary's fence command.
func (w *world) fenceP(works bool) {
	w.pFence = false
	if !works {
		w.stepP(FenceDone{errDown})
		return
	}
	w.note("S loses power")
	w.crashS()
	w.sHost, w.sGuest, w.shell = false, false, 0
	w.stepP(FenceDone{})
}

// fenceS is the end of the secondary's fence command.
func (w *world) fenceS(works bool) {
	w.sFence = false
	if !works {
		w.stepS(FenceDone{errDown})
		return
	}
	w.powerCut()
	w.stepS(FenceDone{})
}

func (w *world) powerCut() {
	w.note("P loses power")
	w.crashP()
	w.pHost, w.guest = false, false
}

func value(e *stream.Epoch) uint64 { return binary.LittleEndian.Uint64(e.State) }

// makeEpoch sends the epoch through the real codec.
func makeEpoch(m SendEpoch, v uint64) *stream.Epoch {
	var wire bytes.Buffer
	w := stream.NewWriter(&wire)
	shell := stream.Shell{VCPUs: 1, EpochPages: 1, MemoryPages: 1, MaxGFN: 1}
	err := errors.Join(
		w.Hello(stream.Hello{Role: stream.Primary, Generation: m.Generation}),
		w.Begin(m.Generation, m.Epoch, m.Epoch == 1),
		w.Always(nil), w.State(binary.LittleEndian.AppendUint64(nil, v)), w.Rings(nil), w.Xenstore(nil))
	if _, e := w.End(); e != nil || err != nil {
		panic(errors.Join(err, e))
	}
	r := stream.NewReader(&wire, stream.Primary, stream.Limits{EpochPages: 1, MemoryPages: 1, MaxGFN: 1}, stream.NewPool())
	r.Resume(&shell, m.Epoch-1)
	for {
		msg, err := r.Next()
		if err != nil {
			panic(err)
		}
		if e, ok := msg.(*stream.Epoch); ok {
			return e
		}
	}
}

func (w *world) history(t testing.TB) {
	for _, line := range w.log {
		t.Log(line)
	}
}
