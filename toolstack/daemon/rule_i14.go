// SPDX-License-Identifier: Apache-2.0

//go:build !broken_i14

package daemon

import "github.com/kemari-ft/kemari/toolstack/lease"

// peerMayRun says whether the other host may run the guest of a record, or come
// to it: then it must not be started here (invariant I14).
func peerMayRun(rec lease.Record) bool {
	switch rec.Phase {
	case lease.Unprotected, lease.Ended, lease.Running:
		return false
	case lease.Copying:
		return rec.Role == lease.Secondary
	}
	return rec.Generation != 0
}
