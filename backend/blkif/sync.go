// SPDX-License-Identifier: Apache-2.0

package blkif

import "github.com/kemari-ft/kemari/backend/gate"

// Freeze returns when no grant copy and no store to a ring is in progress, and
// keeps it so until Thaw (invariant I3). Disk I/O goes on. Calls do not nest.
//
// The methods of a sync (Freeze, HasOutput, Rearm, Capture, Commit, Thaw) do
// not allocate. A ring found broken is put out of service and reported through
// Config.Failed; it does not stop a sync.
func (d *Device) Freeze() {
	d.stopWork()
	for _, q := range d.queues() {
		q.mu.Lock()
		q.ring.Freeze()
		q.mu.Unlock()
	}
}

// Thaw ends a Freeze.
func (d *Device) Thaw() {
	for _, q := range d.queues() {
		q.mu.Lock()
		q.ring.Thaw()
		q.mu.Unlock()
	}
	d.resumeWork()
}

// Gate begins gating: requests not taken yet wait for the first Commit. It
// belongs into the freeze of the first sync. A front end that connects later
// finds its gate closed.
func (d *Device) Gate() {
	d.gated.Store(true)
	for _, q := range d.queues() {
		q.mu.Lock()
		q.ring.Close()
		q.journal.SetGate(q.ring.Recovery())
		q.mu.Unlock()
	}
}

// Ungate ends gating: the guest is not protected any more, or not yet.
func (d *Device) Ungate() {
	d.gated.Store(false)
	for _, q := range d.queues() {
		q.mu.Lock()
		q.ring.Open()
		q.journal.SetGate(q.ring.Recovery())
		q.mu.Unlock()
		q.kick()
	}
}

// HasOutput says whether the guest asked for something with an outside effect
// that no capture covers. If not, Rearm and Thaw are enough. The device is
// frozen and the guest paused.
func (d *Device) HasOutput() bool {
	for _, q := range d.queues() {
		q.mu.Lock()
		out := false
		if !q.dead {
			var err error
			out, err = q.ring.HasOutput()
			q.broken(err)
		}
		q.mu.Unlock()
		if out {
			return true
		}
	}
	return false
}

// Rearm makes the front end notify of its next request (invariant I5). The
// device is frozen and the guest paused.
func (d *Device) Rearm() {
	for _, q := range d.queues() {
		q.mu.Lock()
		if !q.dead {
			q.broken(q.ring.Rearm())
		}
		q.mu.Unlock()
	}
}

// Capture appends the position of each ring to dst, for the sync being made,
// and re-arms them. The device is frozen and the guest paused.
func (d *Device) Capture(dst []gate.Indices) []gate.Indices {
	d.captured.Store(d.link.Load())
	for _, q := range d.queues() {
		q.mu.Lock()
		from, to := q.ring.InProgress()
		at := gate.Indices{RspProd: from, ReqProd: to}
		if !q.dead {
			if got, err := q.ring.Capture(); err != nil {
				q.broken(err)
			} else {
				at = got
			}
		}
		dst = append(dst, at)
		q.mu.Unlock()
	}
	return dst
}

// Commit says that the other host holds the sync of the newest Capture, which
// returned at. Its requests may pass. It may be called frozen or not.
func (d *Device) Commit(at []gate.Indices) error {
	l := d.captured.Load()
	if l == nil || l != d.link.Load() {
		// The front end has connected anew since. What it asked for before
		// is gone with its ring; what it asks for now waits for a capture.
		return nil
	}
	if len(at) != len(l.queues) {
		return d.errf("commit of %d rings, it has %d", len(at), len(l.queues))
	}
	for n, q := range l.queues {
		q.mu.Lock()
		err := error(nil)
		if !q.dead {
			if err = q.ring.Commit(at[n].ReqProd); err == nil {
				q.journal.SetGate(q.ring.Recovery())
			}
		}
		q.mu.Unlock()
		if err != nil {
			return d.errf("ring %d: %w", n, err)
		}
		q.kick()
	}
	return nil
}

// queues is the queues of the front end connected, or none. Between Freeze and
// Thaw it does not change.
func (d *Device) queues() []*queue {
	if l := d.link.Load(); l != nil {
		return l.queues
	}
	return nil
}

// broken puts the queue, whose lock is held, out of service if err is one.
func (q *queue) broken(err error) {
	if err != nil {
		q.dead = true
		q.dev.fail(err)
	}
}
