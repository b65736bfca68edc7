// SPDX-License-Identifier: Apache-2.0

//go:build broken_i2

package ring

// nextToPublish breaks invariant I2 on purpose, so that its test can be seen
// to fail: whichever request is completed goes into the next slot, as ring.h
// permits and Linux's blkback does.
func (r *BackRing) nextToPublish() (slot uint32, ok bool) {
	for i := r.rspProdPvt; i != r.reqCons; i++ {
		if r.done[i&r.mask] {
			return i & r.mask, true
		}
	}
	return 0, false
}
