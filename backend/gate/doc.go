// SPDX-License-Identifier: Apache-2.0

// Package gate decides which requests of a shared ring a back end may work on,
// so that nothing the guest did leaves the host before the other host could
// carry on from there.
//
// A [Ring] is a [ring.BackRing] with a commit gate. While the gate is open it
// behaves like any back end's ring. Once closed, a request with an outside
// effect is handed out only if its index lies below P_c, the req_prod captured
// while the guest was paused for the last committed sync. A request without
// one (a disk read) may also pass if no request before it that has one waits
// for its answer; it can be done again at no cost to anybody.
//
// The life of a sync, as seen from here:
//
//	Freeze      nothing is handed out or published any more
//	HasOutput   is there anything worth a sync? if not: Rearm, Thaw
//	Capture     req_prod and rsp_prod, while the guest is paused
//	Thaw        published and read on, up to the old P_c
//	Commit      the capture becomes P_c: its requests may be handed out
//
// A back end on the other host starts from a capture with [Attach], and does
// every request in [rsp_prod, P_c) again. One restarted on the same host takes
// up its own work with [Recover].
//
// Indices are free-running and wrap at 2^32; they are compared by distance.
// The package is pure: no I/O, no goroutine, no clock, no lock.
package gate
