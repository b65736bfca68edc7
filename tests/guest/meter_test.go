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

func TestSpin(t *testing.T) {
	start := rdtsc()
	// A gap that began before the loop did is seen at its first reading.
	last, now := spin(start-1<<40, 1<<39, ^uint64(0))
	if last != start-1<<40 || now < start {
		t.Errorf("gap from %d to %d, want from %d", last, now, start-1<<40)
	}
	// A TSC behind the reading before is a gap too, for the caller to judge.
	if last, now = spin(start+1<<50, 1<<62, ^uint64(0)); now >= last {
		t.Errorf("a step backwards not seen: %d to %d", last, now)
	}
	// Without a gap the deadline ends it.
	start = rdtsc()
	if last, now = spin(start, 1<<62, start+1_000_000); now <= start+1_000_000 || now-last > 1<<62 {
		t.Errorf("deadline %d, left at %d", start+1_000_000, now)
	}
}

// Being stopped, here by the test itself, is measured at its length.
func TestMeterSeesAStop(t *testing.T) {
	w := &watcher{hz: calibrate()}
	m, err := newMeter(0, w)
	if err != nil {
		t.Fatal(err)
	}
	m.d.threshold.Store(w.hz / 50_000)
	m.on.Store(true)
	done := make(chan error)
	go func() { done <- m.measure() }()
	time.Sleep(300 * time.Millisecond)
	m.on.Store(false)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	st := m.status(w.hz)
	if st.MeasuredUs < 200_000 {
		t.Errorf("measured %v us of 300 ms", st.MeasuredUs)
	}
	if gaps := st.Stopped.TotalUs + st.Switched.TotalUs; gaps > st.MeasuredUs*1.1 {
		t.Errorf("gaps of %v us in %v us", gaps, st.MeasuredUs)
	}
	m.reset()
	if st := m.status(w.hz); st.MeasuredUs != 0 || st.Stopped.Count+st.Switched.Count != 0 {
		t.Errorf("after a reset: %+v", st)
	}
}
