// SPDX-License-Identifier: Apache-2.0

//go:build broken_i9

package lease

// judge breaks I9 on purpose: who loses the link takes the peer for dead.
func judge(linkSilent, secondSilent, _ bool) Verdict {
	switch {
	case linkSilent:
		return Dead
	case secondSilent:
		return Degraded
	}
	return Alive
}
