// SPDX-License-Identifier: Apache-2.0

//go:build broken_i4

package primary

import "github.com/kemari-ft/kemari/toolstack/stream"

// dom0Writes breaks invariant I4 on purpose, so that its test can be seen to
// fail: the rings are forgotten, and travel only when the guest writes to them.
func (c *Capture) dom0Writes() [1][]stream.AlwaysPage {
	return [...][]stream.AlwaysPage{c.fixed}
}
