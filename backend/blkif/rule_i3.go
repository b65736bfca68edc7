// SPDX-License-Identifier: Apache-2.0

//go:build !broken_i3

package blkif

// stopWork waits for grant copies and ring accesses to end and keeps new ones
// from beginning (invariant I3).
func (d *Device) stopWork() { d.freeze.Lock() }

func (d *Device) resumeWork() { d.freeze.Unlock() }
