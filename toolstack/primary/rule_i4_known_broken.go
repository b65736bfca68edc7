// SPDX-License-Identifier: Apache-2.0

//go:build broken_i4_known

package primary

import (
	"bytes"

	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/xen/abi"
)

// again and forget break invariant I4 on purpose, so that its tests can be seen to
// fail: what is remembered is what the secondary was told first.
func (k *known) again(place int, page []byte) stream.LineSet {
	var set stream.LineSet
	set, k.diff = stream.Diff(k.diff[:0], bytes.Clone(k.page(place)), page)
	return set
}

func (k *known) forget(abi.GFN) {}
