// SPDX-License-Identifier: Apache-2.0

// Package lease holds the rules by which one of two hosts, and never both, may
// run a guest: what counts as proof, which epoch is activated, when output may
// leave without an acknowledgement, and when a peer counts as dead.
//
// It is pure: no clock, no goroutine, no I/O.  Time is a number of ticks.  The
// rules that must never bend stand in files of their own, rule_i8.go,
// rule_i9.go, rule_i12.go and rule_i13.go; beside each lies the same rule
// broken, which only the build tag broken_i8 (and so on) compiles.
// tests/broken.sh builds each of them and expects the tests to fail.
package lease
