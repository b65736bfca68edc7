// SPDX-License-Identifier: Apache-2.0

//go:build !broken_i4_known

package primary

import (
	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/xen/abi"
)

// again returns what tell does of a page that is remembered. What is remembered is
// what the secondary was told last, else it would hide a change (invariant I4).
func (k *known) again(place int, page []byte) stream.LineSet {
	var set stream.LineSet
	set, k.diff = stream.Diff(k.diff[:0], k.page(place), page)
	return set
}

// forget is for a page about which the secondary is told otherwise.
func (k *known) forget(gfn abi.GFN) { delete(k.places, gfn) }
