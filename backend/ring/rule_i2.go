// SPDX-License-Identifier: Apache-2.0

//go:build !broken_i2

package ring

// nextToPublish names the completed response that goes into the slot of
// rsp_prod: that of the same request and no other (invariant I2).
func (r *BackRing) nextToPublish() (slot uint32, ok bool) {
	slot = r.rspProdPvt & r.mask
	return slot, r.done[slot]
}
