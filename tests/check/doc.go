// SPDX-License-Identifier: Apache-2.0

// Package check holds what the demonstration guest and the scenarios that
// judge it must agree on: the chain of hashes, the records on the disk, the
// lines on the console, and the rules by which two statuses and a disk image
// prove that the guest went on as if nothing had happened.
//
// The package is pure: no clock, no goroutine, and no I/O but the io.ReaderAt
// it is handed. What it reads was written by a guest under test and is treated
// as hostile: sizes and numbers are checked before they are used.
package check
