// SPDX-License-Identifier: Apache-2.0

//go:build broken_i12

package lease

// MayAck breaks I12 on purpose: acknowledging never stops.
func MayAck(bool) bool { return true }

// Choose breaks I12 on purpose: it takes what happens to lie in the shell.
func Choose(img Image, _ Record) (uint64, error) { return img.Applied, nil }
