// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"math/bits"
	"sync/atomic"

	"github.com/kemari-ft/kemari/tests/check"
)

// histogram counts durations in TSC ticks with a resolution of an eighth. It
// has one writer; readers and reset come from other threads and may see a gap
// in one counter and not yet in another. It is small: a meter that dirtied many
// pages would measure itself.
type histogram struct {
	count, total, longest atomic.Uint64
	bucket                [64 * 8]atomic.Uint32
}

// bucketOf is exact below 8, then eight buckets to the power of two.
func bucketOf(v uint64) int {
	if v < 8 {
		return int(v)
	}
	e := bits.Len64(v) - 4 // v>>e is 8..15
	return e*8 + int(v>>e)
}

// bucketTop is the largest value of a bucket.
func bucketTop(b int) uint64 {
	if b < 8 {
		return uint64(b)
	}
	e := b/8 - 1
	return (uint64(8+b%8)+1)<<e - 1
}

func (h *histogram) add(v uint64) {
	h.count.Add(1)
	h.total.Add(v)
	h.bucket[bucketOf(v)].Add(1)
	if v > h.longest.Load() {
		h.longest.Store(v)
	}
}

func (h *histogram) reset() {
	h.count.Store(0)
	h.total.Store(0)
	h.longest.Store(0)
	for i := range h.bucket {
		h.bucket[i].Store(0)
	}
}

// quantile answers the top of the bucket below which a part q of all lie, and
// never more than the longest.
func (h *histogram) quantile(q float64) uint64 {
	var all uint64
	for i := range h.bucket {
		all += uint64(h.bucket[i].Load())
	}
	if all == 0 {
		return 0
	}
	rank, seen := uint64(q*float64(all)), uint64(0)
	for i := range h.bucket {
		if seen += uint64(h.bucket[i].Load()); seen > rank {
			return min(bucketTop(i), h.longest.Load())
		}
	}
	return h.longest.Load()
}

func (h *histogram) summary(hz uint64) check.Gaps {
	us := func(ticks uint64) float64 { return micros(ticks, hz) }
	return check.Gaps{
		Count: h.count.Load(), TotalUs: us(h.total.Load()),
		P50Us: us(h.quantile(0.5)), P90Us: us(h.quantile(0.9)), P99Us: us(h.quantile(0.99)), P999Us: us(h.quantile(0.999)),
		MaxUs: us(h.longest.Load()),
	}
}

// micros rounds to a hundredth, so that the status stays readable.
func micros(ticks, hz uint64) float64 {
	return float64(int64(float64(ticks)*1e8/float64(hz)+0.5)) / 100
}
