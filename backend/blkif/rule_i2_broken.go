// SPDX-License-Identifier: Apache-2.0

//go:build broken_i2

package blkif

import "github.com/kemari-ft/kemari/backend/ring"

// taken breaks invariant I2 on purpose, so that its test can be seen to fail: the
// request is looked for in its slot.
func (q *queue) taken(i uint32, dst []byte) error {
	copy(dst, q.mapping.Bytes()[ring.HeaderSize+(i&(q.ring.Size()-1))*slotSize:])
	return nil
}
