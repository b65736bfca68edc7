// SPDX-License-Identifier: Apache-2.0

package blkif

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/kemari-ft/kemari/backend/ring/ringtest"
	"github.com/kemari-ft/kemari/xen/abi"
)

const (
	okay        = int16(abi.BlkifRspOkay)
	failed      = int16(abi.BlkifRspError)
	unsupported = int16(abi.BlkifRspEOPNOTSUPP)
)

func fill(p []byte, tag string) {
	for len(p) > 0 {
		p = p[copy(p, tag):]
	}
}

func TestWriteAndReadBack(t *testing.T) {
	for _, c := range []struct{ queues, pages int }{{1, 1}, {1, 16}, {4, 2}} {
		t.Run(fmt.Sprintf("%d queues of %d pages", c.queues, c.pages), func(t *testing.T) {
			b := connected(t, c.queues, c.pages)
			for n, d := range b.drivers {
				ref := abi.GrantRef(20 + 10*n)
				fill(b.h.page(ref), fmt.Sprintf("queue %d! ", n))
				fill(b.h.page(ref+1), fmt.Sprintf("%d eueuq? ", n))
				at := uint64(64 * n)
				// A piece of one page and a whole other one.
				if s := d.do(rw(abi.BlkifOpWrite, at, seg(ref, 2, 4), seg(ref+1, 0, 7))); s != okay {
					t.Fatalf("write: status %d", s)
				}
				want := append(bytes.Clone(b.h.page(ref)[1024:2560]), b.h.page(ref+1)...)
				if got := b.store.data[at*512:][:len(want)]; !bytes.Equal(got, want) {
					t.Fatal("the disk does not hold what was written")
				}
				b.h.page(ref + 2)
				b.h.page(ref + 3)
				if s := d.do(rw(abi.BlkifOpRead, at, seg(ref+2, 0, 7), seg(ref+3, 1, 3))); s != okay {
					t.Fatalf("read: status %d", s)
				}
				got := append(bytes.Clone(b.h.page(ref+2)), b.h.page(ref + 3)[512:2048]...)
				if !bytes.Equal(got, want) {
					t.Fatal("the guest does not read what it wrote")
				}
			}
		})
	}
}

func TestIndirectSegments(t *testing.T) {
	b := connected(t, 1, 1)
	d := b.drivers[0]
	desc := b.h.page(7)
	var want []byte
	for k := range MaxIndirectSegments {
		ref := abi.GrantRef(5000 + k)
		fill(b.h.page(ref), fmt.Sprintf("page %d;", k))
		want = append(want, b.h.page(ref)...)
		copy(desc[k*segmentSize:], seg(ref, 0, 7))
	}
	if s := d.do(indirect(abi.BlkifOpWrite, 8, MaxIndirectSegments, 7)); s != okay {
		t.Fatalf("write: status %d", s)
	}
	if !bytes.Equal(b.store.data[8*512:][:len(want)], want) {
		t.Fatal("the disk does not hold what was written")
	}
	for k := range MaxIndirectSegments {
		clear(b.h.page(abi.GrantRef(5000 + k)))
	}
	if s := d.do(indirect(abi.BlkifOpRead, 8, MaxIndirectSegments, 7)); s != okay {
		t.Fatalf("read: status %d", s)
	}
	for k := range MaxIndirectSegments {
		if !bytes.Equal(b.h.page(abi.GrantRef(5000+k)), want[k*4096:][:4096]) {
			t.Fatalf("page %d was not read back", k)
		}
	}
}

func TestFlushAndDiscard(t *testing.T) {
	b := connected(t, 1, 1)
	d := b.drivers[0]
	fill(b.store.data, "x")
	if s := d.do(rw(abi.BlkifOpFlushDiskcache, 0)); s != okay || b.store.flushes != 1 {
		t.Errorf("flush: status %d, %d flushes", s, b.store.flushes)
	}
	if s := d.do(discard(0, 8, 16)); s != okay || b.store.data[8*512] != 0 || b.store.data[24*512] != 'x' {
		t.Errorf("discard: status %d, or the wrong range", s)
	}
	fill(b.h.page(1), "flushed")
	if s := d.do(rw(abi.BlkifOpFlushDiskcache, 4, seg(1, 0, 0))); s != okay || !bytes.HasPrefix(b.store.data[4*512:], []byte("flushed")) {
		t.Errorf("flush with data: status %d", s)
	}
}

func TestBadRequestsAreAnswered(t *testing.T) {
	last := uint64(diskSize/512 - 1)
	for name, c := range map[string]struct {
		req  []byte
		want int16
	}{
		"no such operation":             {rw(77, 0, seg(1, 0, 0)), failed},
		"barrier":                       {rw(abi.BlkifOpWriteBarrier, 0, seg(1, 0, 0)), unsupported},
		"no segments":                   {rw(abi.BlkifOpRead, 0), failed},
		"too many segments":             {append([]byte{abi.BlkifOpWrite, 12}, make([]byte, slotSize-2)...), failed},
		"segment ends before it starts": {rw(abi.BlkifOpWrite, 0, seg(1, 3, 2)), failed},
		"segment beyond the page":       {rw(abi.BlkifOpWrite, 0, seg(1, 0, 8)), failed},
		"no such grant":                 {rw(abi.BlkifOpWrite, 0, seg(99, 0, 0)), failed},
		"read into no such grant":       {rw(abi.BlkifOpRead, 0, seg(99, 0, 0)), failed},
		"last sector":                   {rw(abi.BlkifOpRead, last, seg(1, 0, 0)), okay},
		"beyond the end":                {rw(abi.BlkifOpRead, last, seg(1, 0, 1)), failed},
		"far beyond the end":            {rw(abi.BlkifOpWrite, ^uint64(0), seg(1, 0, 0)), failed},
		"sector times 512 wraps":        {rw(abi.BlkifOpWrite, 1<<55, seg(1, 0, 0)), failed},
		"discard beyond the end":        {discard(0, 8, ^uint64(0)), failed},
		"secure discard":                {discard(abi.BlkifDiscardSecure, 0, 8), unsupported},
		"indirect without segments":     {indirect(abi.BlkifOpRead, 0, 0, 1), failed},
		"too many indirect segments":    {indirect(abi.BlkifOpRead, 0, MaxIndirectSegments+1, 1), failed},
		"no indirect page":              {indirect(abi.BlkifOpRead, 0, 4, 99), failed},
		"indirect indirect":             {indirect(abi.BlkifOpIndirect, 0, 1, 1), failed},
		"indirect discard":              {indirect(abi.BlkifOpDiscard, 0, 1, 1), failed},
	} {
		t.Run(name, func(t *testing.T) {
			reports := make(chan error, 4)
			b := connected(t, 1, 1, func(c *Config) { c.Report = func(err error) { reports <- err } })
			b.h.page(1)
			if s := b.drivers[0].do(c.req); s != c.want {
				t.Errorf("status %d, want %d", s, c.want)
			}
			if c.want != okay && b.store.written() != 0 {
				t.Error("something was written")
			}
			if (len(reports) > 0) != (c.want == failed) {
				t.Errorf("status %d and %d reports to the operator", c.want, len(reports))
			}
		})
	}
}

func TestDiskErrorsReachTheGuest(t *testing.T) {
	b := connected(t, 1, 1)
	d := b.drivers[0]
	b.h.page(1)
	b.store.fail(errors.New("medium error"))
	for _, req := range [][]byte{
		rw(abi.BlkifOpRead, 0, seg(1, 0, 0)), rw(abi.BlkifOpWrite, 0, seg(1, 0, 0)),
		rw(abi.BlkifOpFlushDiskcache, 0), discard(0, 0, 8),
	} {
		if s := d.do(req); s != failed {
			t.Errorf("operation %d: status %d, want an error", req[0], s)
		}
	}
	b.store.fail(fmt.Errorf("no: %w", errors.ErrUnsupported))
	if s := d.do(discard(0, 0, 8)); s != unsupported {
		t.Errorf("discard on a disk that can not: status %d", s)
	}
}

func TestReadOnlyDisk(t *testing.T) {
	b := connected(t, 1, 1, func(c *Config) { c.ReadOnly = true })
	b.h.page(1)
	for _, req := range [][]byte{rw(abi.BlkifOpWrite, 0, seg(1, 0, 0)), discard(0, 0, 8), indirect(abi.BlkifOpWrite, 0, 1, 1)} {
		if s := b.drivers[0].do(req); s != failed {
			t.Errorf("operation %d: status %d, want an error", req[0], s)
		}
	}
	if s := b.drivers[0].do(rw(abi.BlkifOpRead, 0, seg(1, 0, 0))); s != okay {
		t.Errorf("read: status %d", s)
	}
}

func TestLargeSectors(t *testing.T) {
	b := connected(t, 1, 1)
	b.store.sector = 4096
	b.h.page(1)
	if s := b.drivers[0].do(rw(abi.BlkifOpWrite, 1, seg(1, 0, 7))); s != failed {
		t.Errorf("unaligned write: status %d", s)
	}
	if s := b.drivers[0].do(rw(abi.BlkifOpWrite, 8, seg(1, 0, 7))); s != okay {
		t.Errorf("aligned write: status %d", s)
	}
}

func TestResponsesKeepTheOrderOfRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := connected(t, 1, 1)
		b.hold(t)
		d := b.drivers[0]
		b.h.page(1)
		// The second fails before the first has even reached the disk.
		d.put(rw(abi.BlkifOpWrite, 0, seg(1, 0, 0)), rw(77, 0))
		recv(t, b.store.arrived, "write")
		synctest.Wait()
		if s := d.responses(); len(s) != 0 {
			t.Fatalf("statuses %v before the first request is done", s)
		}
		b.store.proceed <- struct{}{}
		if s := d.wait(2); s[0] != okay || s[1] != failed {
			t.Errorf("statuses %v", s)
		}
	})
}

func TestHostileRingIsPutOutOfService(t *testing.T) {
	b := connected(t, 2, 1)
	b.h.page(1)
	b.drivers[0].front.Store(ringtest.ReqProd, 1000)
	b.drivers[0].event()
	t.Log(recv(t, b.failed, "notice of the failure"))
	// A sync goes on without it.
	b.Freeze()
	b.Gate()
	if b.HasOutput() {
		t.Error("a broken ring has output")
	}
	b.Rearm()
	at := b.Capture(nil)
	b.Thaw()
	if err := b.Commit(at); err != nil {
		t.Error(err)
	}
}

func TestConnectRefuses(t *testing.T) {
	many := make([]abi.GrantRef, 32)
	for name, ch := range map[string][]QueueChannel{
		"no rings":           nil,
		"too many rings":     make([]QueueChannel, MaxQueues+1),
		"no pages":           {{Port: 1}},
		"three pages":        {{Refs: many[:3], Port: 1}},
		"too many pages":     {{Refs: many, Port: 1}},
		"unequal rings":      {{Refs: many[:1], Port: 1}, {Refs: many[:2], Port: 2}},
		"no such grant":      {{Refs: []abi.GrantRef{9}, Port: 1}},
		"second not granted": {{Refs: []abi.GrantRef{1000}, Port: 1}, {Refs: []abi.GrantRef{9}, Port: 1}},
	} {
		b := newBench(t, 1, 1)
		if err := b.Connect(ch); err == nil {
			t.Errorf("%s: no error", name)
		}
		if b.h.mapped != 0 || len(b.h.bound) != 0 {
			t.Errorf("%s: %d mappings and %d ports are left", name, b.h.mapped, len(b.h.bound))
		}
	}
}

func TestFrontEndCanConnectAgain(t *testing.T) {
	b := connected(t, 1, 1)
	b.h.page(1)
	for range 3 {
		if s := b.drivers[0].do(rw(abi.BlkifOpWrite, 0, seg(1, 0, 0))); s != okay {
			t.Fatalf("write: status %d", s)
		}
		if err := b.Connect(b.channels()); err == nil {
			t.Fatal("connected twice")
		}
		if err := b.Disconnect(); err != nil {
			t.Fatal(err)
		}
		if err := b.Connect(b.channels()); err != nil {
			t.Fatal(err)
		}
		b.wire()
	}
}

func TestBuffersSuitDirectIO(t *testing.T) {
	bufs, err := newBuffers(3)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range bufs {
		if !aligned(b) || len(b) != bufferSize {
			t.Errorf("a buffer of %d bytes, aligned: %v", len(b), aligned(b))
		}
	}
}
