// SPDX-License-Identifier: Apache-2.0

//go:build broken_i1

package gate

// permits breaks invariant I1 on purpose, so that its test can be seen to fail:
// what the guest has pushed is worked on at once.
func (g *gate) permits(uint32, bool, uint32) bool { return true }
