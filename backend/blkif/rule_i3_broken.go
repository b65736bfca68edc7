// SPDX-License-Identifier: Apache-2.0

//go:build broken_i3

package blkif

// stopWork breaks invariant I3 on purpose, so that its test can be seen to
// fail: grant copies go on while the guest's memory is being copied.
func (d *Device) stopWork() {}

func (d *Device) resumeWork() {}
