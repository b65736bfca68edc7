// SPDX-License-Identifier: Apache-2.0

//go:build !broken_i4

package blkif

import "github.com/kemari-ft/kemari/xen/gntdev"

// moveData moves data between our buffers and the guest's pages: by grant copy,
// which Xen notes as a write at the instant at which it is one (invariant I4).
func (d *Device) moveData(segs []gntdev.CopySegment) error { return d.cfg.Grants.Copy(segs) }
