// SPDX-License-Identifier: Apache-2.0

package pair

import (
	"cmp"
	"slices"
	"time"

	"github.com/kemari-ft/kemari/toolstack/primary"
)

// Summary is the median of each figure of some syncs.
func Summary(syncs []primary.Sync) primary.Sync {
	return primary.Sync{
		Wake:    median(syncs, func(s primary.Sync) time.Duration { return s.Wake }),
		Look:    median(syncs, func(s primary.Sync) time.Duration { return s.Look }),
		Store:   median(syncs, func(s primary.Sync) time.Duration { return s.Store }),
		Harvest: median(syncs, func(s primary.Sync) time.Duration { return s.Harvest }),
		Copy:    median(syncs, func(s primary.Sync) time.Duration { return s.Copy }),
		Send:    median(syncs, func(s primary.Sync) time.Duration { return s.Send }),
		Ack:     median(syncs, func(s primary.Sync) time.Duration { return s.Ack }),
		Release: median(syncs, func(s primary.Sync) time.Duration { return s.Release }),
		Pause:   median(syncs, func(s primary.Sync) time.Duration { return s.Pause }),
		Dirty:   median(syncs, func(s primary.Sync) uint32 { return s.Dirty }),
		Hot:     median(syncs, func(s primary.Sync) uint32 { return s.Hot }),
		Same:    median(syncs, func(s primary.Sync) uint32 { return s.Same }),
		Always:  median(syncs, func(s primary.Sync) uint32 { return s.Always }),
		Pages:   median(syncs, func(s primary.Sync) uint64 { return s.Pages }),
		Lines:   median(syncs, func(s primary.Sync) uint64 { return s.Lines }),
		Zeros:   median(syncs, func(s primary.Sync) uint64 { return s.Zeros }),
		Octets:  median(syncs, func(s primary.Sync) uint64 { return s.Octets }),

		Hypercalls:  median(syncs, func(s primary.Sync) uint64 { return s.Hypercalls }),
		Wakeups:     median(syncs, func(s primary.Sync) uint64 { return s.Wakeups }),
		ReadsWrites: median(syncs, func(s primary.Sync) uint64 { return s.ReadsWrites }),
	}
}

func median[T cmp.Ordered](syncs []primary.Sync, of func(primary.Sync) T) T {
	var none T
	if len(syncs) == 0 {
		return none
	}
	all := make([]T, len(syncs))
	for i, s := range syncs {
		all[i] = of(s)
	}
	slices.Sort(all)
	return all[len(all)/2]
}
