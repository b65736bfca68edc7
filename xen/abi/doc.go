// SPDX-License-Identifier: Apache-2.0

// Package abi declares the binary interface of Xen 4.20 on x86-64 as Go types
// and constants: hypercall arguments, shared rings, the xenstore wire header,
// HVM save records, and the ioctl arguments of Linux's Xen devices.
//
// The package does no I/O. Every struct carries the layout the C compiler
// gives to the declaration named in its comment; testdata holds the sizes,
// offsets and numbers that gcc measured on Xen's own headers, and a test
// compares them with these declarations field by field. To measure again:
//
//	XEN_SRC=/path/to/xen go test ./xen/abi -run TestGolden -update
//
// Guest handles (XEN_GUEST_HANDLE, XEN_GUEST_HANDLE_64) are plain uint64
// virtual addresses: what they point at must lie in hypercall-safe memory (see
// package privcmd), never in the Go heap.
package abi

//go:generate go test . -run TestGolden -update
