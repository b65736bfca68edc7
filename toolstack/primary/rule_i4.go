// SPDX-License-Identifier: Apache-2.0

//go:build !broken_i4

package primary

import "github.com/kemari-ft/kemari/toolstack/stream"

// dom0Writes are the pages that dom0 writes to in a way which Xen does not
// note: those of xenstored and xenconsoled, and the disks' rings. Every epoch
// carries them, as it does those that Xen itself writes (invariant I4).
func (c *Capture) dom0Writes() [2][]stream.AlwaysPage {
	return [...][]stream.AlwaysPage{c.fixed, c.rings}
}
