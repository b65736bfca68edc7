// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

// rdtsc reads the time stamp counter of the vCPU it runs on.
//
//go:noescape
func rdtsc() uint64
