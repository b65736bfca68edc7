// SPDX-License-Identifier: Apache-2.0

// Package stream reads and writes the Kemari stream: the records that a
// primary and a secondary exchange over one connection.
//
// The format is specified in docs/stream.md; tools/streamverify is a second,
// independent implementation of that document.  The package knows what a
// well-formed stream is.  What a record means for the guest, and whether it
// may be acted upon, is decided by package replica.
package stream
