// SPDX-License-Identifier: Apache-2.0

//go:build !broken_i1

package gate

// permits is the rule of the closed gate (invariant I1): a request passes if the
// other host has committed it, or if it and all requests before it that wait
// for an answer have no outside effect.
func (g *gate) permits(i uint32, effect bool, rspProd uint32) bool {
	return before(i, g.limit) || !effect && !g.effectPending(rspProd)
}
