// SPDX-License-Identifier: Apache-2.0

//go:build !broken_i6

package gate

// restartAt is the first request done again after a failover: the first that
// was not answered (invariant I6).
func restartAt(at Indices) uint32 { return at.RspProd }
