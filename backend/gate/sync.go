// SPDX-License-Identifier: Apache-2.0

package gate

// Freeze stops the ring: until Thaw nothing is handed out or published, so the
// shared page does not change from this side (invariant I3).
func (r *Ring) Freeze() { r.gate.frozen = true }

// Thaw ends a Freeze.
func (r *Ring) Thaw() { r.gate.frozen = false }

// Close begins gating. Requests handed out so far are not called back; all
// others wait for the first commit. It belongs into the freeze of the first
// sync.
func (r *Ring) Close() { r.gate.close(r.back.ReqCons()) }

// Open ends gating: everything pushed may be handed out.
func (r *Ring) Open() { r.gate.closed = false }

// HasOutput says whether a request that no capture covers has an outside
// effect, that is, whether a sync is worth the guest's time. The guest is
// paused, the ring frozen.
func (r *Ring) HasOutput() (bool, error) {
	prod, err := r.back.ReqProd()
	if err != nil {
		return false, err
	}
	from := r.back.ReqCons()
	if before(from, r.gate.captured) {
		from = r.gate.captured
	}
	for i := from; before(i, prod); i++ {
		r.back.Peek(i, r.peek)
		if r.effect(r.peek) {
			return true, nil
		}
	}
	return false, nil
}

// Rearm makes the front end notify of its first push after the pause
// (invariant I5). The guest is paused, the ring frozen.
func (r *Ring) Rearm() error {
	prod, err := r.back.ReqProd()
	if err != nil {
		return err
	}
	r.back.SetReqEvent(eventAfter(prod))
	return nil
}

// Capture returns the ring's position for the sync being made, and re-arms
// req_event. The guest is paused, the ring frozen.
func (r *Ring) Capture() (Indices, error) {
	prod, err := r.back.ReqProd()
	if err != nil {
		return Indices{}, err
	}
	r.back.SetReqEvent(eventAfter(prod))
	r.gate.captured = prod
	return Indices{RspProd: r.back.RspProdPvt(), ReqProd: prod}, nil
}

// Commit says that the other host holds the sync in which reqProd was
// captured. Requests before it may be handed out.
func (r *Ring) Commit(reqProd uint32) error { return r.gate.commit(reqProd) }
