// SPDX-License-Identifier: Apache-2.0

//go:build broken_i10

package secondary

// sameRate breaks invariant I10 on purpose, so that its test can be seen to
// fail: the guest's TSC runs at this host's rate, whatever it was before.
func sameRate(int64, int64) bool { return true }
