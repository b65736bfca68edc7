// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"pgregory.net/rapid"

	"github.com/kemari-ft/kemari/backend/gate"
	"github.com/kemari-ft/kemari/backend/ring"
	"github.com/kemari-ft/kemari/backend/ring/ringtest"
)

const slotSize, rspSize = 112, 16

var (
	shape = Config{SlotSize: slotSize, Queues: 2, Slots: 8, Identity: 7}
	rings = gate.Config{SlotSize: slotSize, RspSize: rspSize, Effect: func(b []byte) bool { return b[0] != 0 }}
)

// memory is a journal file of a shape, without the file.
func memory(c Config) []byte {
	words := make([]uint64, c.size()/8)
	mem := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), c.size())
	h := c.header()
	copy(mem, h[:])
	return mem
}

func request(id uint64) []byte {
	b := bytes.Repeat([]byte{byte(id), 0x5a}, slotSize/2)
	binary.LittleEndian.PutUint64(b[8:], id)
	return b
}

// snapshot is what is left of a process killed at some store: the ring page and
// the journal.
type snapshot struct {
	ring, journal []byte
	after         string
}

// witness is a back end that keeps a snapshot after each of its stores.
type witness struct {
	front *ringtest.Front
	mem   []byte
	back  *gate.Ring
	jq    *Queue
	shots []snapshot
}

func (w *witness) shot(after string) {
	w.shots = append(w.shots, snapshot{bytes.Clone(w.front.Mem), bytes.Clone(w.mem), after})
}

// take is what a back end does with the next request, store by store. The slot
// of the journal is torn at every multiple of 8 bytes.
func (w *witness) take(t *rapid.T) (uint32, bool) {
	buf := make([]byte, slotSize)
	i, s, err := w.back.Next(buf)
	if err != nil {
		t.Fatal(err)
	}
	if s != gate.Fetched {
		return 0, false
	}
	w.shot("taking")
	slot := w.jq.slot(i)
	old := bytes.Clone(slot)
	w.jq.write(i, buf)
	whole := bytes.Clone(slot)
	for n := 8; n < len(slot); n += 8 {
		copy(slot, old)
		copy(slot[:n], whole)
		w.shot("writing half of a journal slot")
	}
	copy(slot, whole)
	w.shot("writing a journal slot")
	w.jq.Record(i, buf)
	w.shot("recording")
	return i, true
}

// publish tears each response that becomes visible: its bytes lie in the slot
// before rsp_prod moves.
func (w *witness) publish() {
	before := bytes.Clone(w.front.Mem)
	w.back.Publish()
	after := bytes.Clone(w.front.Mem)
	for n := ring.HeaderSize; n < len(after); n += 8 {
		if bytes.Equal(before[n:n+8], after[n:n+8]) {
			continue
		}
		torn := bytes.Clone(after[:n+8])
		torn = append(torn, before[n+8:]...)
		copy(torn[:ring.HeaderSize], before)
		w.shots = append(w.shots, snapshot{torn, bytes.Clone(w.mem), "writing a response"})
	}
	w.shot("publishing")
}

// recover is a restarted back end on what a snapshot holds. It returns the
// requests it works on, by index.
func recovered(t *rapid.T, s snapshot) map[uint32][]byte {
	front := ringtest.New(len(s.ring), slotSize)
	copy(front.Mem, s.ring)
	mem := memory(shape)
	copy(mem, s.journal)
	if err := shape.check(mem, int64(len(mem))); err != nil {
		t.Fatalf("killed after %s: %v", s.after, err)
	}
	jq := shape.queue(mem, 1)
	back, err := gate.Recover(front.Mem, rings, jq.Recovery())
	if err != nil {
		t.Fatalf("killed after %s: %v", s.after, err)
	}
	got := map[uint32][]byte{}
	from, to := back.InProgress()
	for i := from; i != to; i++ {
		b := make([]byte, slotSize)
		if err := jq.Request(i, b); err != nil {
			t.Fatalf("killed after %s: %v", s.after, err)
		}
		back.Redo(i, b)
		got[i] = b
	}
	for {
		b := make([]byte, slotSize)
		i, st, err := back.Next(b)
		if err != nil {
			t.Fatalf("killed after %s: %v", s.after, err)
		}
		if st != gate.Fetched {
			return got
		}
		got[i] = b
	}
}

// I2: killed at any store, a restarted back end works on exactly the requests
// that are not answered, each as the guest wrote it.
func TestI2KilledAtAnyStore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		front := ringtest.New(ring.HeaderSize+8*slotSize, slotSize)
		front.StartAt(rapid.SampledFrom([]uint32{0, ^uint32(0) - 4}).Draw(t, "start"))
		back, err := gate.Connect(front.Mem, rings)
		if err != nil {
			t.Fatal(err)
		}
		w := &witness{front: front, mem: memory(shape), back: back}
		w.jq = shape.queue(w.mem, 1)
		w.jq.Start(back.Recovery())
		asked := map[uint32][]byte{}
		var working []uint32
		var id uint64
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			w.shots = w.shots[:0]
			switch rapid.IntRange(0, 2).Draw(t, "step") {
			case 0:
				for front.Free() > 0 && rapid.Bool().Draw(t, "push") {
					id++
					asked[front.Put(request(id))] = request(id)
				}
				front.Push()
				w.shot("the guest's push")
			case 1:
				if i, ok := w.take(t); ok {
					working = append(working, i)
				}
			case 2:
				if len(working) == 0 {
					continue
				}
				k := rapid.IntRange(0, len(working)-1).Draw(t, "which")
				i := working[k]
				working = append(working[:k], working[k+1:]...)
				rsp := bytes.Repeat([]byte{0xee}, rspSize)
				if err := back.Complete(i, rsp); err != nil {
					t.Fatal(err)
				}
				w.publish()
				front.RspCons = front.Load(ringtest.RspProd)
			}
			for _, s := range w.shots {
				got := recovered(t, s)
				from := binary.LittleEndian.Uint32(s.ring[ringtest.RspProd:])
				to := binary.LittleEndian.Uint32(s.ring[ringtest.ReqProd:])
				if len(got) != int(to-from) {
					t.Fatalf("killed after %s: %d requests are worked on, %d are not answered", s.after, len(got), to-from)
				}
				for i := from; i != to; i++ {
					if !bytes.Equal(got[i], asked[i]) {
						t.Fatalf("killed after %s: request %d is not what the guest asked for", s.after, i)
					}
				}
			}
		}
	})
}

func TestFileOutlivesItsProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "5-51712")
	want := gate.Recovery{ReqCons: 3, Limit: 9, Closed: true}
	j, err := Create(path, shape, func(_ int, q *Queue) { q.Start(gate.Recovery{ReqCons: 2}) })
	if err != nil {
		t.Fatal(err)
	}
	j.Queue(1).Record(2, request(42))
	j.Queue(1).SetGate(want)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if j, err = Open(path, shape); err != nil {
		t.Fatal(err)
	}
	if got := j.Queue(1).Recovery(); got != want {
		t.Errorf("recovered %+v, want %+v", got, want)
	}
	got := make([]byte, slotSize)
	if err := j.Queue(1).Request(2, got); err != nil || !bytes.Equal(got, request(42)) {
		t.Errorf("request 2 came back as %x, %v", got, err)
	}
	if err := j.Queue(1).Request(3, got); err == nil {
		t.Error("a request that was never recorded is found")
	}
	if err := j.Queue(1).Request(10, got); err == nil {
		t.Error("another request of the same slot is found")
	}
	other := shape
	other.Identity++
	if _, err := Open(path, other); !errors.Is(err, ErrForeign) {
		t.Errorf("another connection's journal: got %v, want ErrForeign", err)
	}
	if err := j.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, shape); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no journal: got %v, want ErrNotExist", err)
	}
}

func TestDamagedRequestIsNoticed(t *testing.T) {
	mem := memory(shape)
	q := shape.queue(mem, 0)
	q.Record(0, request(1))
	for n := range q.slot(0) {
		q.slot(0)[n] ^= 4
		if q.Request(0, make([]byte, slotSize)) == nil {
			t.Fatalf("byte %d of a slot is wrong and nobody sees it", n)
		}
		q.slot(0)[n] ^= 4
	}
}

func FuzzOpen(f *testing.F) {
	h := shape.header()
	f.Add(h[:])
	f.Add(memory(shape))
	f.Add([]byte("KEMARIRJ"))
	f.Fuzz(func(t *testing.T, file []byte) {
		path := filepath.Join(t.TempDir(), "journal")
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := Open(path, shape)
		if err != nil {
			return
		}
		defer j.Close()
		for n := range shape.Queues {
			r := j.Queue(n).Recovery()
			_ = j.Queue(n).Request(r.ReqCons-1, make([]byte, slotSize))
		}
	})
}

func BenchmarkRecord(b *testing.B) {
	q := shape.queue(memory(shape), 0)
	req := request(1)
	b.ReportAllocs()
	var i uint32
	for b.Loop() {
		q.Record(i, req)
		i++
	}
}
