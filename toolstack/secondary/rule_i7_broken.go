// SPDX-License-Identifier: Apache-2.0

//go:build broken_i7

package secondary

import "github.com/kemari-ft/kemari/toolstack/stream"

// judge breaks invariant I7 on purpose, so that its test can be seen to fail:
// whatever arrives whole is acknowledged.
func (r *Receiver) judge(*stream.Epoch) error { return nil }
