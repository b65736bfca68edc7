// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"fmt"

	"github.com/google/uuid"
	"github.com/kemari-ft/kemari/toolstack/stream"
)

// Incompatible returns every reason for which two hosts cannot be a pair for a
// guest, as their HELLOs tell it.
func Incompatible(local, peer *stream.Hello) []string {
	var reasons []string
	differ := func(what string, here, there any) {
		reasons = append(reasons, fmt.Sprintf("%s: %v here, %v on the peer", what, here, there))
	}
	if local.Guest != peer.Guest {
		differ("guest", uuid.UUID(local.Guest), uuid.UUID(peer.Guest))
	}
	if local.Host == peer.Host {
		reasons = append(reasons, fmt.Sprintf("both ends are host %s", uuid.UUID(local.Host)))
	}
	if local.Role == peer.Role {
		reasons = append(reasons, fmt.Sprintf("both ends are the %v", local.Role))
	}
	if local.ABI != peer.ABI {
		differ("Kemari interface of the hypervisor", local.ABI, peer.ABI)
	}
	if local.XenVersion != peer.XenVersion {
		differ("Xen version", local.XenVersion, peer.XenVersion)
	}
	if local.CPUVendor != peer.CPUVendor {
		differ("CPU vendor", local.CPUVendor, peer.CPUVendor)
	}
	if local.DomID != peer.DomID {
		differ("domid", uint16(local.DomID), uint16(peer.DomID))
	}
	return reasons
}
