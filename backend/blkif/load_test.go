// SPDX-License-Identifier: Apache-2.0

package blkif

import (
	"bytes"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/kemari-ft/kemari/backend/gate"
	"github.com/kemari-ft/kemari/backend/ring/ringtest"
	"github.com/kemari-ft/kemari/xen/abi"
)

// TestSyncsUnderLoad runs a guest with four busy queues through syncs as fast
// as they come: the guest's memory stands still in each, and it always reads
// what it wrote last.
func TestSyncsUnderLoad(t *testing.T) {
	b := connected(t, 4, 2)
	b.gate()
	var running sync.RWMutex // held for reading by vCPUs, for writing by a pause
	var guests sync.WaitGroup
	stop := make(chan struct{})
	for n, d := range b.drivers {
		w, r := abi.GrantRef(100+n), abi.GrantRef(200+n)
		b.h.page(w)
		b.h.page(r)
		guests.Go(func() {
			for k := range 40 {
				running.RLock()
				fill(b.h.page(w), fmt.Sprintf("queue %d pass %d ", n, k))
				d.put(rw(abi.BlkifOpWrite, uint64(64*n), seg(w, 0, 7)))
				running.RUnlock()
				answer(t, &running, d)
				running.RLock()
				d.put(rw(abi.BlkifOpRead, uint64(64*n), seg(r, 0, 7)))
				running.RUnlock()
				answer(t, &running, d)
				if !bytes.Equal(b.h.page(w), b.h.page(r)) {
					t.Errorf("queue %d, pass %d: another page is read than was written", n, k)
				}
			}
		})
	}
	go func() {
		guests.Wait()
		close(stop)
	}()
	at := make([]gate.Indices, 0, MaxQueues)
	syncs, cheap := 0, 0
	for {
		select {
		case <-stop:
			t.Logf("%d syncs, %d of them without output", syncs, cheap)
			return
		default:
		}
		syncs++
		b.Freeze()
		running.Lock()
		before := b.h.memory()
		output := b.HasOutput()
		time.Sleep(50 * time.Microsecond)
		if !maps.Equal(before, b.h.memory()) {
			t.Error("the guest's memory changed while frozen")
		}
		if !output {
			cheap++
			b.Rearm()
			running.Unlock()
			b.Thaw()
			continue
		}
		at = b.Capture(at[:0])
		running.Unlock()
		b.Thaw()
		if err := b.Commit(at); err != nil {
			t.Fatal(err)
		}
	}
}

// answer waits for one response as a vCPU that can be paused.
func answer(t *testing.T, running *sync.RWMutex, d *driver) {
	for end := time.Now().Add(waitFor); time.Now().Before(end); time.Sleep(20 * time.Microsecond) {
		running.RLock()
		got := d.responses()
		running.RUnlock()
		if len(got) > 0 {
			if got[0] != okay {
				t.Errorf("status %d", got[0])
			}
			return
		}
	}
	t.Error("no response")
}

// FuzzRequests gives the device requests and a page of indirect segments as a
// hostile guest may write them. Each is answered or the device gives up.
func FuzzRequests(f *testing.F) {
	page := bytes.Repeat(seg(3, 0, 7), 512)
	f.Add(rw(abi.BlkifOpWrite, 0, seg(1, 0, 7), seg(2, 1, 1)), page, uint32(1))
	f.Add(indirect(abi.BlkifOpWrite, 0, 200, 2), page, uint32(1))
	f.Add(indirect(abi.BlkifOpRead, 4, 256, 2), page, uint32(1))
	f.Add(append(discard(1, 2, 3), discard(0, 7, 1<<60)...), page, uint32(2))
	f.Add(rw(9, 1<<63), page, uint32(40))
	f.Fuzz(func(t *testing.T, reqs, desc []byte, prod uint32) {
		b := newBench(t, 1, 1)
		b.store.data = b.store.data[:64<<10]
		if err := b.Connect(b.channels()); err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		b.wire()
		b.h.page(1)
		copy(b.h.page(2), desc)
		b.h.page(3)
		front := b.drivers[0].front
		for k := uint32(0); k < 32; k++ {
			reqs = reqs[copy(front.Slot(k), reqs):]
		}
		front.Store(ringtest.ReqProd, prod)
		b.drivers[0].event()
		end := time.After(waitFor)
		for front.Load(ringtest.RspProd) != prod {
			select {
			case err := <-b.failed:
				if prod <= 32 {
					t.Fatal(err)
				}
				return
			case <-b.h.notified:
			case <-time.After(time.Millisecond):
			case <-end:
				t.Fatalf("%d of %d requests answered", front.Load(ringtest.RspProd), prod)
			}
		}
	})
}

// BenchmarkDevice is a request's way through ring, gate, journal and a worker,
// with a store and a guest in memory.
func BenchmarkDevice(b *testing.B) {
	for name, req := range map[string][]byte{
		"read 4 KiB":  rw(abi.BlkifOpRead, 0, seg(1, 0, 7)),
		"write 4 KiB": rw(abi.BlkifOpWrite, 0, seg(1, 0, 7)),
	} {
		b.Run(name, func(b *testing.B) {
			d := connected(b, 1, 1, func(c *Config) { c.Store = nullStore{}; c.Grants = nullGrants{c.Grants} })
			dr := d.drivers[0]
			dr.event = func() { d.Event(d.queues()[0].port) }
			b.ReportAllocs()
			for b.Loop() {
				for dr.front.Free() == 0 {
					dr.front.RspCons = dr.front.Load(ringtest.RspProd)
				}
				dr.front.Put(req)
				if dr.front.Push() {
					dr.event()
				}
			}
			for dr.front.Load(ringtest.RspProd) != dr.front.ReqProdPvt {
				time.Sleep(time.Microsecond)
			}
		})
	}
}
