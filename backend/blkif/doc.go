// SPDX-License-Identifier: Apache-2.0

// Package blkif is a back end for Xen's block protocol
// (xen/include/public/io/blkif.h) whose output waits for a commit and whose
// work another host can take over.
//
// A [Device] serves the rings of one virtual disk. Per ring there is a
// goroutine that takes requests through the commit gate (package gate), notes
// them in the journal (package journal) and hands them to the device's
// workers. A worker moves data between the guest and its own buffer by grant
// copy only, never by a mapping: Xen logs the pages written by grant copy as
// dirty, and those written through a mapping not before it is removed.
//
// Locks, outermost first:
//
//	Device.freeze  held for reading around every grant copy and every look at
//	               a ring, for writing from Freeze to Thaw
//	queue.mu       one ring, its gate and its journal
//
// Neither is held during disk I/O, so a freeze waits for copies, not for disks.
package blkif
