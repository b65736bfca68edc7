// SPDX-License-Identifier: Apache-2.0

//go:build !broken_i13

package lease

// MayLeave is I13: output leaves without an acknowledgement only with proof
// that the secondary can never activate this generation.
func MayLeave(p Proof) bool {
	return p == Discarded || p == Fenced || p == NeverWhole
}
