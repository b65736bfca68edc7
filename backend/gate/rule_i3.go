// SPDX-License-Identifier: Apache-2.0

//go:build !broken_i3

package gate

// held says whether the ring must be left alone: it is being copied (invariant
// I3).
func (r *Ring) held() bool { return r.gate.frozen }
