// SPDX-License-Identifier: Apache-2.0

//go:build !broken_i8

package lease

// MayActivate is I8: the guest is activated only with proof that the primary
// does not run it.  An expired lease is none when the peer can still write to
// a disk which both hosts reach.
func MayActivate(p Proof, sharedDisk bool) bool {
	switch p {
	case Fenced, LetGo:
		return true
	case LeaseExpired:
		return !sharedDisk
	}
	return false
}
