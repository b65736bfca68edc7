// SPDX-License-Identifier: Apache-2.0

//go:build broken_i6

package gate

// restartAt breaks invariant I6 on purpose, so that its test can be seen to
// fail: pending requests are skipped, as by the BACK_RING_ATTACH of old.
func restartAt(at Indices) uint32 { return at.ReqProd }
