// SPDX-License-Identifier: Apache-2.0

//go:build !broken_i9

package lease

// judge is I9: a link that falls silent while the host still answers elsewhere
// is a daemon's restart, not a host's death, until the grace for that is over.
func judge(linkSilent, secondSilent, graceOver bool) Verdict {
	switch {
	case linkSilent && secondSilent:
		return Dead
	case linkSilent && graceOver:
		return Hung
	case linkSilent:
		return DaemonLost
	case secondSilent:
		return Degraded
	}
	return Alive
}
