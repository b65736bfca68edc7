// SPDX-License-Identifier: Apache-2.0

//go:build broken_i14

package daemon

import "github.com/kemari-ft/kemari/toolstack/lease"

// peerMayRun breaks invariant I14 on purpose, so that its test can be seen to
// fail: a host that comes back starts what the other one runs.
func peerMayRun(lease.Record) bool { return false }
