// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
	"unsafe"

	"pgregory.net/rapid"
)

func TestBucketHoldsItsValue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.Uint64().Draw(t, "v") >> rapid.IntRange(0, 63).Draw(t, "shift")
		b := bucketOf(v)
		if v > bucketTop(b) || b > 0 && v <= bucketTop(b-1) {
			t.Fatalf("%d in bucket %d, which ends at %d", v, b, bucketTop(b))
		}
		if top := bucketTop(b); v >= 8 && top-v > v/8 {
			t.Fatalf("%d in a bucket up to %d: coarser than an eighth", v, top)
		}
	})
}

func TestHistogramQuantiles(t *testing.T) {
	var h histogram
	var all []uint64
	for range 10_000 {
		v := uint64(rand.ExpFloat64() * 1e5)
		all = append(all, v)
		h.add(v)
	}
	slices.Sort(all)
	for _, q := range []float64{0, 0.5, 0.9, 0.99, 0.999} {
		want := all[int(q*float64(len(all)))]
		if got := h.quantile(q); got < want || got > want+want/8 {
			t.Errorf("quantile %v: %d, true %d", q, got, want)
		}
	}
	s := h.summary(1e9)
	if s.Count != 10_000 || s.MaxUs != micros(all[len(all)-1], 1e9) {
		t.Errorf("%+v, longest %d ns", s, all[len(all)-1])
	}
	h.reset()
	if s := h.summary(1e9); s.Count != 0 || s.MaxUs != 0 || s.P99Us != 0 || s.TotalUs != 0 {
		t.Errorf("after a reset: %+v", s)
	}
}

func TestMeterDirtiesFewPages(t *testing.T) {
	if n := unsafe.Sizeof(meterData{}); n > 2*4096 {
		t.Errorf("the meter writes to %d bytes", n)
	}
}

// Being stopped, here by a rest that is too long, is measured at its length.
func TestMeterSeesAStop(t *testing.T) {
	w := &watcher{hz: calibrate()}
	m, err := newMeter(0, w)
	if err != nil {
		t.Fatal(err)
	}
	m.on.Store(true)
	const stop = 300 * time.Millisecond
	rests := 0
	m.measure(func() {
		switch rests++; rests {
		case 5:
			time.Sleep(stop)
		case 50:
			m.on.Store(false)
		}
	})
	st := m.status(w.hz)
	us := float64(stop.Microseconds())
	if g := st.Gaps; g.Count == 0 || g.MaxUs < us || g.TotalUs < g.MaxUs || st.MeasuredUs < g.TotalUs {
		t.Errorf("a stop of %v: %+v", stop, st)
	}
	if g := st.Gaps; g.Count > 10 {
		t.Errorf("gaps without a stop: %+v", st)
	}
	m.reset()
	if st := m.status(w.hz); st.MeasuredUs != 0 || st.Gaps.Count != 0 {
		t.Errorf("after a reset: %+v", st)
	}

	m.on.Store(true)
	looks, began := 0, time.Now()
	m.measure(func() {
		rest()
		if looks++; looks == 3*yieldEvery {
			m.on.Store(false)
		}
	})
	if d := time.Since(began); d < 3*yieldEvery*lookEvery {
		t.Errorf("%d looks in %v, one each %v at most is wanted", looks, d, lookEvery)
	}
}
