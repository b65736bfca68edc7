// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

// rdtsc reads the time stamp counter of the vCPU it runs on.
//
//go:noescape
func rdtsc() uint64

// spin reads the TSC until it has advanced by more than threshold since the
// reading before (prev at first), or has passed deadline, and answers the last
// two readings.
//
//go:noescape
func spin(prev, threshold, deadline uint64) (last, now uint64)
