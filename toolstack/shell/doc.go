// SPDX-License-Identifier: Apache-2.0

// Package shell makes and keeps the shell of a guest: the paused domain on the
// secondary whose memory receives the epochs.  It runs xl, so that the domain
// is an ordinary one to all of Xen's tools; package xlstream says what xl is
// given.
package shell
