// SPDX-License-Identifier: Apache-2.0

package ring_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/kemari-ft/kemari/backend/ring"
	"github.com/kemari-ft/kemari/backend/ring/ringtest"
)

const (
	slot = 112 // union blkif_sring_entry
	rsp  = 16  // blkif_response_t
)

func attach(t testing.TB, f *ringtest.Front, i uint32) *ring.BackRing {
	t.Helper()
	r, err := ring.AttachBack(f.Mem, slot, rsp, i)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func request(tag uint64) []byte {
	b := make([]byte, slot)
	for i := range b {
		b[i] = byte(tag) ^ byte(i)
	}
	binary.LittleEndian.PutUint64(b, tag)
	return b
}

func response(tag uint64) []byte {
	b := make([]byte, rsp)
	binary.LittleEndian.PutUint64(b, tag)
	return b
}

func TestEntriesAsInRingH(t *testing.T) {
	for _, c := range []struct {
		size, slot int
		want       uint32
	}{
		{4096, 112, 32}, {8192, 112, 64}, {65536, 112, 512},
		{4096, 12, 256}, {4096, 8, 256}, {64, 112, 0}, {0, 8, 0}, {176, 112, 1},
	} {
		if got := ring.Entries(c.size, c.slot); got != c.want {
			t.Errorf("Entries(%d, %d) = %d, want %d", c.size, c.slot, got, c.want)
		}
	}
}

// I2: a response is written only into the slot of its own request and in
// request order, so the slots not answered yet hold intact requests at every
// instant.
func TestI2SlotsAheadOfRspProdHoldRequests(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := ringtest.New(4096, slot)
		start := rapid.SampledFrom([]uint32{0, 7, ^uint32(0) - 5}).Draw(t, "start")
		f.StartAt(start)
		r, err := ring.AttachBack(f.Mem, slot, rsp, start)
		if err != nil {
			t.Fatal(err)
		}
		tags := map[uint32]uint64{}
		var working []uint32
		var tag uint64
		buf := make([]byte, slot)
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				if f.Free() == 0 {
					t.Skip()
				}
				tag++
				tags[f.Put(request(tag))] = tag
				f.Push()
			},
			"consume": func(t *rapid.T) {
				prod, err := r.ReqProd()
				if err != nil {
					t.Fatal(err)
				}
				if r.ReqCons() == prod {
					t.Skip()
				}
				i := r.ReqCons()
				r.Peek(i, buf)
				if string(buf) != string(request(tags[i])) {
					t.Fatalf("request %d was not copied as pushed", i)
				}
				r.Consume()
				working = append(working, i)
			},
			"complete": func(t *rapid.T) {
				if len(working) == 0 {
					t.Skip()
				}
				k := rapid.IntRange(0, len(working)-1).Draw(t, "which")
				i := working[k]
				working = append(working[:k], working[k+1:]...)
				if err := r.Complete(i, response(tags[i])); err != nil {
					t.Fatalf("complete %d: %v", i, err)
				}
				r.Publish()
			},
			"receive": func(t *rapid.T) {
				f.Responses(func(i uint32, b []byte) {
					if got := binary.LittleEndian.Uint64(b); got != tags[i] {
						t.Fatalf("slot %d holds the response to %d, want %d", i, got, tags[i])
					}
					delete(tags, i)
				})
			},
			"": func(t *rapid.T) {
				for i := f.Load(ringtest.RspProd); i != f.Load(ringtest.ReqProd); i++ {
					if string(f.Slot(i)) != string(request(tags[i])) {
						t.Fatalf("slot %d is not answered and its request is gone", i)
					}
				}
			},
		})
	})
}

func TestReqProdOverflow(t *testing.T) {
	f := ringtest.New(4096, slot)
	r := attach(t, f, 0)
	f.Store(ringtest.ReqProd, 33)
	if _, err := r.ReqProd(); !errors.Is(err, ring.ErrOverflow) {
		t.Errorf("33 requests in a ring of 32: got %v, want ErrOverflow", err)
	}
	f.Store(ringtest.ReqProd, 32)
	if _, err := r.ReqProd(); err != nil {
		t.Errorf("a full ring: %v", err)
	}
	r.Consume()
	r.Consume()
	f.Store(ringtest.ReqProd, 1)
	if _, err := r.ReqProd(); !errors.Is(err, ring.ErrOverflow) {
		t.Errorf("req_prod moved back behind what was consumed: got %v, want ErrOverflow", err)
	}
}

func TestCompleteRefusesWhatIsNotInProgress(t *testing.T) {
	f := ringtest.New(4096, slot)
	r := attach(t, f, 0)
	for range 3 {
		f.Put(request(1))
	}
	f.Push()
	r.Consume()
	r.Consume()
	for _, i := range []uint32{2, 32, ^uint32(0)} {
		if err := r.Complete(i, response(1)); !errors.Is(err, ring.ErrNotOurs) {
			t.Errorf("Complete(%d): got %v, want ErrNotOurs", i, err)
		}
	}
	if err := r.Complete(1, response(1)); err != nil {
		t.Fatal(err)
	}
	if err := r.Complete(1, response(1)); !errors.Is(err, ring.ErrNotOurs) {
		t.Errorf("second response to one request: got %v, want ErrNotOurs", err)
	}
}

func TestNotifyOnlyWhenAsked(t *testing.T) {
	f := ringtest.New(4096, slot)
	r := attach(t, f, 0)
	for range 4 {
		f.Put(request(1))
	}
	if !f.Push() {
		t.Error("first push does not notify although req_event was 1")
	}
	for i := range uint32(4) {
		r.Consume()
		if err := r.Complete(i, response(1)); err != nil {
			t.Fatal(err)
		}
	}
	f.Store(ringtest.RspEvent, 9)
	if n, notify := r.Publish(); n != 4 || notify {
		t.Errorf("Publish = %d, %v; want 4 responses and no notification before rsp_event", n, notify)
	}
	if n, notify := r.Publish(); n != 0 || notify {
		t.Errorf("Publish with nothing new = %d, %v", n, notify)
	}
}

func TestAttachRefuses(t *testing.T) {
	f := ringtest.New(4096, slot)
	for name, try := range map[string]func() error{
		"too small": func() error { _, err := ring.AttachBack(f.Mem[:100], slot, rsp, 0); return err },
		"unaligned": func() error { _, err := ring.AttachBack(f.Mem[1:], slot, rsp, 0); return err },
		"response too long": func() error {
			_, err := ring.AttachBack(f.Mem, slot, slot+1, 0)
			return err
		},
	} {
		if try() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// A front end may store anything anywhere in its page at any time.
func FuzzHostileFrontEnd(f *testing.F) {
	f.Add([]byte{0, 33, 1, 0, 2, 0})
	f.Add([]byte{0, 4, 1, 1, 1, 2, 3, 0, 2, 1})
	f.Fuzz(func(t *testing.T, ops []byte) {
		fr := ringtest.New(4096, slot)
		guard := fr.Mem[len(fr.Mem)-(4096-ring.HeaderSize-32*slot):]
		r := attach(t, fr, 0)
		buf := make([]byte, slot)
		for k := 0; k+1 < len(ops); k += 2 {
			arg := uint32(ops[k+1])
			switch ops[k] % 5 {
			case 0:
				fr.Store(ringtest.ReqProd, arg*0x01000193)
			case 1:
				fr.Store(ringtest.ReqProd, arg)
			case 2:
				if prod, err := r.ReqProd(); err == nil {
					for r.ReqCons() != prod {
						r.Peek(r.ReqCons(), buf)
						r.Consume()
					}
				}
			case 3:
				_ = r.Complete(arg, response(uint64(arg)))
				r.Publish()
			case 4:
				fr.Store(int(arg%4)*4, arg<<24|arg)
			}
			if r.ReqCons()-r.RspProdPvt() > r.Size() {
				t.Fatal("more requests in progress than slots")
			}
		}
		for _, b := range guard {
			if b != 0 {
				t.Fatal("wrote behind the last slot")
			}
		}
	})
}

func BenchmarkRequest(b *testing.B) {
	for _, order := range []int{0, 4} {
		b.Run(fmt.Sprintf("order%d", order), func(b *testing.B) {
			f := ringtest.New(4096<<order, slot)
			r := attach(b, f, 0)
			req, ans, buf := request(1), response(1), make([]byte, slot)
			b.ReportAllocs()
			for b.Loop() {
				i := f.Put(req)
				f.Push()
				r.Peek(i, buf)
				r.Consume()
				_ = r.Complete(i, ans)
				r.Publish()
				f.RspCons++
			}
		})
	}
}
