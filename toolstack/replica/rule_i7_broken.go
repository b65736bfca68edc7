// SPDX-License-Identifier: Apache-2.0

//go:build broken_i7

package replica

import "github.com/kemari-ft/kemari/toolstack/stream"

// check breaks invariant I7 on purpose, so that its test can be seen to fail: for
// what an epoch leaves out something is made up.
func (s *Stage) check(*stream.Epoch) error { return nil }
