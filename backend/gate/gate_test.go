// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"testing"

	"github.com/kemari-ft/kemari/backend/ring/ringtest"
)

// TestAnsweredWriteIsForgotten: half a turn of the indices after the last write reads
// still pass a closed gate. Indices are compared by their distance.
func TestAnsweredWriteIsForgotten(t *testing.T) {
	const size, slot = 4096, 64
	f := ringtest.New(size, slot)
	r, err := Connect(f.Mem, Config{SlotSize: slot, RspSize: 16, Effect: func([]byte) bool { return true }})
	if err != nil {
		t.Fatal(err)
	}
	f.Put(make([]byte, slot))
	f.Push()
	i, s, err := r.Next(make([]byte, slot))
	if err != nil || s != Fetched {
		t.Fatalf("Next: %v, %v", s, err)
	}
	if !r.gate.effectPending(r.back.RspProdPvt()) {
		t.Error("a write that is not answered is not pending")
	}
	if err := r.Complete(i, make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	r.Publish()
	r.Close()
	for _, later := range []uint32{0, 1, 1<<31 - 1, 1 << 31, 1<<31 + 1, 1<<32 - 1} {
		rsp := r.back.RspProdPvt() + later
		r.gate.limit = rsp // commits go on
		if !r.gate.permits(rsp, false, rsp) {
			t.Errorf("%d requests after it a read waits for the write that was answered", later)
		}
	}
}
