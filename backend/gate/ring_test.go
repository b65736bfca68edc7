// SPDX-License-Identifier: Apache-2.0

package gate_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/kemari-ft/kemari/backend/gate"
	"github.com/kemari-ft/kemari/backend/ring"
	"github.com/kemari-ft/kemari/backend/ring/ringtest"
)

func connect(t testing.TB) (*ringtest.Front, *gate.Ring) {
	t.Helper()
	f := ringtest.New(ringSize, slotSize)
	r, err := gate.Connect(f.Mem, config)
	if err != nil {
		t.Fatal(err)
	}
	return f, r
}

func next(t testing.TB, r *gate.Ring, want gate.Status) uint32 {
	t.Helper()
	i, s, err := r.Next(make([]byte, slotSize))
	if err != nil || s != want {
		t.Fatalf("Next = %s, %v; want %s", s, err, want)
	}
	return i
}

func capture(t testing.TB, r *gate.Ring) gate.Indices {
	t.Helper()
	r.Freeze()
	at, err := r.Capture()
	if err != nil {
		t.Fatal(err)
	}
	r.Thaw()
	return at
}

var (
	read  = op{id: 1}.encode()
	write = op{id: 2, write: true}.encode()
)

func TestReadsPassUntilAWriteWaits(t *testing.T) {
	f, r := connect(t)
	r.Close()
	f.Put(read)
	f.Put(write)
	f.Put(read)
	f.Push()
	next(t, r, gate.Fetched)
	next(t, r, gate.Uncaptured)
	at := capture(t, r)
	next(t, r, gate.Waiting)
	if err := r.Commit(at.ReqProd); err != nil {
		t.Fatal(err)
	}
	next(t, r, gate.Fetched)
	next(t, r, gate.Fetched)
	// A read beyond the commit waits for the write before it to be answered.
	f.Put(read)
	f.Push()
	next(t, r, gate.Waiting)
	for i := range uint32(3) {
		if err := r.Complete(i, make([]byte, rspSize)); err != nil {
			t.Fatal(err)
		}
	}
	if n, _ := r.Publish(); n != 3 {
		t.Fatalf("%d responses published, want 3", n)
	}
	next(t, r, gate.Fetched)
	next(t, r, gate.Idle)
}

func TestHasOutputSeesOnlyWhatIsNew(t *testing.T) {
	f, r := connect(t)
	r.Close()
	check := func(want bool) {
		t.Helper()
		r.Freeze()
		defer r.Thaw()
		if got, err := r.HasOutput(); err != nil || got != want {
			t.Fatalf("HasOutput = %v, %v; want %v", got, err, want)
		}
	}
	check(false)
	f.Put(read)
	f.Push()
	check(false)
	f.Put(write)
	f.Push()
	check(true)
	capture(t, r)
	check(false)
}

func TestCommitRefusesWhatWasNotCaptured(t *testing.T) {
	f, r := connect(t)
	r.Close()
	f.Put(write)
	f.Push()
	if r.Commit(1) == nil {
		t.Error("a commit without a capture is taken")
	}
	at := capture(t, r)
	if err := r.Commit(at.ReqProd); err != nil {
		t.Fatal(err)
	}
	if r.Commit(0) == nil {
		t.Error("a commit that goes back is taken")
	}
}

// A gate that is closed again stays where it was: what was committed may pass.
func TestCloseTwice(t *testing.T) {
	f, r := connect(t)
	r.Close()
	f.Put(write)
	f.Push()
	if err := r.Commit(capture(t, r).ReqProd); err != nil {
		t.Fatal(err)
	}
	r.Close()
	next(t, r, gate.Fetched)
}

func TestOpenLetsEverythingPass(t *testing.T) {
	f, r := connect(t)
	r.Close()
	f.Put(write)
	f.Push()
	next(t, r, gate.Uncaptured)
	r.Open()
	next(t, r, gate.Fetched)
}

// I6: the other host begins with the first request that was not answered.
func TestI6AttachDoesAgainWhatWasNotAnswered(t *testing.T) {
	f, r := connect(t)
	for range 4 {
		f.Put(write)
	}
	f.Push()
	next(t, r, gate.Fetched)
	if err := r.Complete(0, make([]byte, rspSize)); err != nil {
		t.Fatal(err)
	}
	r.Publish()
	at := capture(t, r)
	if at != (gate.Indices{RspProd: 1, ReqProd: 4}) {
		t.Fatalf("captured %+v", at)
	}
	other, err := gate.Attach(bytes.Clone(f.Mem), config, at)
	if err != nil {
		t.Fatal(err)
	}
	for want := uint32(1); want < 4; want++ {
		if i := next(t, other, gate.Fetched); i != want {
			t.Fatalf("request %d is done again, want %d", i, want)
		}
	}
	next(t, other, gate.Idle)
}

func TestAttachRefusesAnotherRing(t *testing.T) {
	f, r := connect(t)
	f.Put(write)
	f.Push()
	at := capture(t, r)
	f.Put(write)
	f.Push()
	if _, err := gate.Attach(f.Mem, config, at); err == nil {
		t.Error("a ring that is not the one captured is taken up")
	}
	f.Store(ringtest.ReqProd, 1000)
	if _, err := gate.Attach(f.Mem, config, at); !errors.Is(err, ring.ErrOverflow) {
		t.Errorf("an impossible req_prod: got %v, want ErrOverflow", err)
	}
	if _, err := gate.Connect(f.Mem, config); !errors.Is(err, ring.ErrOverflow) {
		t.Errorf("connecting to it: got %v, want ErrOverflow", err)
	}
}

func TestSyncDoesNotAllocate(t *testing.T) {
	f, r := connect(t)
	r.Close()
	buf, rsp := make([]byte, slotSize), make([]byte, rspSize)
	n := testing.AllocsPerRun(100, func() {
		i := f.Put(write)
		f.Push()
		r.Freeze()
		if out, err := r.HasOutput(); !out || err != nil {
			t.Fatal("no output seen")
		}
		at, _ := r.Capture()
		r.Thaw()
		_ = r.Commit(at.ReqProd)
		if _, s, _ := r.Next(buf); s != gate.Fetched {
			t.Fatal(s)
		}
		_ = r.Complete(i, rsp)
		r.Publish()
		f.RspCons++
	})
	if n != 0 {
		t.Errorf("%v allocations per request and sync, want 0", n)
	}
}

func BenchmarkGatedRequest(b *testing.B) {
	f, r := connect(b)
	r.Close()
	buf, rsp := make([]byte, slotSize), make([]byte, rspSize)
	b.ReportAllocs()
	for b.Loop() {
		i := f.Put(write)
		f.Push()
		r.Freeze()
		at, _ := r.Capture()
		r.Thaw()
		_ = r.Commit(at.ReqProd)
		_, _, _ = r.Next(buf)
		_ = r.Complete(i, rsp)
		r.Publish()
		f.RspCons++
	}
}
