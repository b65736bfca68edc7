// SPDX-License-Identifier: Apache-2.0

package gate_test

import (
	"bytes"
	"encoding/binary"
	"maps"
	"slices"

	"pgregory.net/rapid"

	"github.com/kemari-ft/kemari/backend/gate"
	"github.com/kemari-ft/kemari/backend/ring"
	"github.com/kemari-ft/kemari/backend/ring/ringtest"
)

const (
	slotSize = 112
	rspSize  = 16
	ringSize = ring.HeaderSize + 8*slotSize // 8 slots, so that they are reused often
	sectors  = 4
)

var config = gate.Config{
	SlotSize: slotSize, RspSize: rspSize,
	Effect: func(req []byte) bool { return req[0] != 0 },
}

// op is a request of the model's guest.
type op struct {
	id     uint64
	write  bool
	sector int
	value  uint64
}

func (o op) encode() []byte {
	b := make([]byte, slotSize)
	if o.write {
		b[0] = 1
	}
	binary.LittleEndian.PutUint64(b[8:], o.id)
	binary.LittleEndian.PutUint64(b[16:], uint64(o.sector))
	binary.LittleEndian.PutUint64(b[24:], o.value)
	return b
}

func decode(b []byte) op {
	return op{
		write:  b[0] != 0,
		id:     binary.LittleEndian.Uint64(b[8:]),
		sector: int(binary.LittleEndian.Uint64(b[16:])),
		value:  binary.LittleEndian.Uint64(b[24:]),
	}
}

// guest is everything a sync copies.
type guest struct {
	front       *ringtest.Front
	outstanding map[uint32]op
	pushed      map[uint64]bool // ids ever pushed in this timeline
	expect      [sectors]uint64 // what answered writes left
}

func (g *guest) clone() *guest {
	c := *g
	f := ringtest.New(ringSize, slotSize)
	copy(f.Mem, g.front.Mem)
	f.ReqProdPvt, f.RspCons = g.front.ReqProdPvt, g.front.RspCons
	c.front = f
	c.outstanding = maps.Clone(g.outstanding)
	c.pushed = maps.Clone(g.pushed)
	return &c
}

// busy says whether a new request would overlap one in flight: the result of
// that is undefined on any disk.
func (g *guest) busy(sector int, write bool) bool {
	for _, o := range g.outstanding {
		if o.sector == sector && (o.write || write) {
			return true
		}
	}
	return false
}

type image struct {
	guest *guest
	at    gate.Indices
}

// world is a guest, its back end, the disk and the other host.
type world struct {
	t         *rapid.T
	guest     *guest
	back      *gate.Ring
	work      map[uint32]op
	disk      [sectors]uint64
	committed *image // nil: not protected
	captured  *image
	frozen    []byte // the ring as it was at the freeze
	nextID    uint64

	trigger bool // a sync is on its way
	idle    bool // the back end waits for an event or a commit
}

func (w *world) push(o op) {
	i := w.guest.front.Put(o.encode())
	w.guest.outstanding[i] = o
	w.guest.pushed[o.id] = true
}

// notifyBack is the front end's event: it is tapped, so it triggers a sync; it
// also wakes the back end.
func (w *world) notifyBack() { w.trigger, w.idle = true, false }

// serve lets the back end take up to n requests.
func (w *world) serve(n int) {
	buf := make([]byte, slotSize)
	for range n {
		i, s, err := w.back.Next(buf)
		if err != nil {
			w.t.Fatalf("serving: %v", err)
		}
		switch s {
		case gate.Fetched:
			o := decode(buf)
			w.checkFetch(i, o)
			w.work[i] = o
			continue
		case gate.Uncaptured:
			w.trigger = true
		}
		w.idle = true
		return
	}
}

func (w *world) checkFetch(i uint32, o op) {
	if want, ok := w.guest.outstanding[i]; !ok || want != o {
		w.t.Fatalf("request %d is handed out as %+v, the guest asked for %+v", i, o, want)
	}
	if _, ok := w.work[i]; ok {
		w.t.Fatalf("request %d is handed out twice", i)
	}
	if w.committed == nil || w.committed.guest.pushed[o.id] {
		return
	}
	if o.write {
		w.t.Fatalf("write %d is handed out, and no commit holds it", i)
	}
	for j := w.guest.front.Load(ringtest.RspProd); j != i; j++ {
		if w.guest.outstanding[j].write {
			w.t.Fatalf("uncommitted read %d overtakes write %d", i, j)
		}
	}
}

// finish executes a request and answers it.
func (w *world) finish(i uint32) {
	o := w.work[i]
	delete(w.work, i)
	rsp := make([]byte, rspSize)
	binary.LittleEndian.PutUint64(rsp, o.id)
	if o.write {
		w.disk[o.sector] = o.value
	} else {
		binary.LittleEndian.PutUint64(rsp[8:], w.disk[o.sector])
	}
	if err := w.back.Complete(i, rsp); err != nil {
		w.t.Fatalf("completing %d: %v", i, err)
	}
	w.publish()
}

func (w *world) publish() {
	if n, _ := w.back.Publish(); n > 0 {
		w.idle = false // reads may pass now
	}
}

func (w *world) receive() {
	w.guest.front.Responses(func(i uint32, rsp []byte) {
		o, ok := w.guest.outstanding[i]
		if !ok {
			w.t.Fatalf("response in slot %d, where nothing was asked for", i)
		}
		if id := binary.LittleEndian.Uint64(rsp); id != o.id {
			w.t.Fatalf("slot %d holds the response to %d, want %d", i, id, o.id)
		}
		delete(w.guest.outstanding, i)
		if o.write {
			w.guest.expect[o.sector] = o.value
		} else if v := binary.LittleEndian.Uint64(rsp[8:]); v != w.guest.expect[o.sector] {
			w.t.Fatalf("read %d of sector %d returns %d, last written was %d", i, o.sector, v, w.guest.expect[o.sector])
		}
	})
}

func (w *world) freeze() {
	w.back.Freeze()
	w.frozen = bytes.Clone(w.guest.front.Mem)
	w.trigger = false
}

// capture ends a freeze with a sync.
func (w *world) capture() {
	w.checkFrozen()
	if w.committed == nil && w.captured == nil {
		w.back.Close()
	}
	at, err := w.back.Capture()
	if err != nil {
		w.t.Fatal(err)
	}
	w.captured = &image{guest: w.guest.clone(), at: at}
	w.thaw()
}

// release ends a freeze without one.
func (w *world) release() {
	w.checkFrozen()
	if err := w.back.Rearm(); err != nil {
		w.t.Fatal(err)
	}
	w.thaw()
}

func (w *world) thaw() {
	w.back.Thaw()
	w.frozen = nil
	w.idle = false // the event held back is delivered
	w.publish()
}

func (w *world) checkFrozen() {
	if !bytes.Equal(w.frozen, w.guest.front.Mem) {
		w.t.Fatal("the ring changed between freeze and capture")
	}
}

func (w *world) commit() {
	if err := w.back.Commit(w.captured.at.ReqProd); err != nil {
		w.t.Fatal(err)
	}
	w.committed, w.captured = w.captured, nil
	w.idle = false
}

// failover loses the host: the guest goes on elsewhere from the last commit,
// with the disk as it is.
func (w *world) failover() {
	w.guest = w.committed.guest.clone()
	back, err := gate.Attach(w.guest.front.Mem, config, w.committed.at)
	if err != nil {
		w.t.Fatalf("attaching: %v", err)
	}
	w.back, w.work, w.captured, w.frozen = back, map[uint32]op{}, nil, nil
	w.trigger, w.idle = false, false // both sides are kicked once
}

// drain lets everything come to its end.
func (w *world) drain() {
	for range 20 {
		if len(w.guest.outstanding) == 0 {
			return
		}
		if w.frozen == nil {
			w.freeze()
		}
		if w.captured == nil {
			w.capture()
		} else {
			w.release()
		}
		w.commit()
		w.serve(1000)
		for _, i := range slices.Sorted(maps.Keys(w.work)) {
			w.finish(i)
		}
		w.receive()
	}
	w.t.Fatalf("requests are never answered: %v", w.guest.outstanding)
}

func newWorld(t *rapid.T) *world {
	f := ringtest.New(ringSize, slotSize)
	f.StartAt(rapid.SampledFrom([]uint32{0, ^uint32(0) - 6}).Draw(t, "start"))
	back, err := gate.Connect(f.Mem, config)
	if err != nil {
		t.Fatal(err)
	}
	return &world{
		t: t, back: back, work: map[uint32]op{},
		guest: &guest{front: f, outstanding: map[uint32]op{}, pushed: map[uint64]bool{}},
	}
}
