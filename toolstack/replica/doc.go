// SPDX-License-Identifier: Apache-2.0

// Package replica decides what the two hosts of a pair do: Primary on the host
// that runs the guest, Secondary on the one that holds the copy.
//
// Both are pure state machines without clock, goroutine or I/O.  Step takes an
// event and returns actions.  The caller executes the actions strictly in the
// order given, each to its end before the next; Apply alone may go on in the
// background, in order, and ends before a later DestroyShell or Activate
// begins.  Persist ends when the record is safely on disk; if that fails, no
// later action may be executed and the daemon has to stop.  A crash may fall
// between any two actions; the rules I7, I8, I12 and I13 hold nevertheless.
//
// A pair has at most one connection for a guest.  Every event that came over a
// connection carries its number, given by the caller in ascending order, and
// is ignored once there is a newer one.
package replica
