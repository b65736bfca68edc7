// SPDX-License-Identifier: Apache-2.0

// Package xsreplica carries what xenstore holds of a guest to another host:
// nodes, by an allow-list, and watches, which are registered there in the
// guest's name and without the guest.
//
// It also judges whether a guest's store ring is quiet.  What lies half read or
// half written inside xenstored cannot be carried over, so an epoch whose image
// of the ring is not quiet cannot be activated (see Judge).
//
// The watches and the details of quietness are oxenstored's; C xenstored does
// not tell them.
package xsreplica
