// SPDX-License-Identifier: Apache-2.0

package gate

import "fmt"

// Indices is the position of a ring at a capture: requests [RspProd, ReqProd)
// are not answered.
type Indices struct {
	RspProd uint32
	ReqProd uint32
}

// gate is the rule without the ring. Its zero value is open.
type gate struct {
	closed bool
	frozen bool

	limit    uint32 // P_c: the captured req_prod of the last commit
	captured uint32 // req_prod of the newest capture; never before limit

	// The newest request handed out that has an outside effect.
	effect    uint32
	hasEffect bool
}

// before says whether index i comes before j, across the wrap at 2^32. Both
// are within one ring's length of rsp_prod, so their distance is far below
// 2^31.
func before(i, j uint32) bool { return int32(i-j) < 0 }

// answered forgets the newest request with an outside effect once all before rspProd
// are answered: half a turn of the indices later it would seem to lie ahead.
func (g *gate) answered(rspProd uint32) {
	if g.hasEffect && before(g.effect, rspProd) {
		g.hasEffect = false
	}
}

// effectPending says whether a request with an outside effect waits for its
// answer. Requests are handed out in order, so the newest one decides.
func (g *gate) effectPending(rspProd uint32) bool {
	return g.hasEffect && !before(g.effect, rspProd)
}

// allow says whether request i may be handed out. rspProd is the index of the
// first request that is not answered.
func (g *gate) allow(i uint32, effect bool, rspProd uint32) bool {
	return !g.closed || g.permits(i, effect, rspProd)
}

// fetched records that request i was handed out.
func (g *gate) fetched(i uint32, effect bool) {
	if effect {
		g.effect, g.hasEffect = i, true
	}
}

// covered says whether request i waits only for the commit of a capture that
// was already made.
func (g *gate) covered(i uint32) bool { return before(i, g.captured) }

// close begins gating at index at: what was handed out before stays so. One
// that is closed stays where it is.
func (g *gate) close(at uint32) {
	if g.closed {
		return
	}
	g.closed = true
	g.limit, g.captured = at, at
}

// commit moves the gate to p, a captured req_prod.
func (g *gate) commit(p uint32) error {
	if before(p, g.limit) || before(g.captured, p) {
		return fmt.Errorf("gate: commit of req_prod %d, which is not between the last commit (%d) and the last capture (%d)",
			p, g.limit, g.captured)
	}
	g.limit = p
	return nil
}
