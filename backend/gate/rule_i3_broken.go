// SPDX-License-Identifier: Apache-2.0

//go:build broken_i3

package gate

// held breaks invariant I3 on purpose, so that its test can be seen to fail:
// the back end goes on while its ring is copied.
func (r *Ring) held() bool { return false }
