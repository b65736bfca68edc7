// SPDX-License-Identifier: Apache-2.0

package blkif

import (
	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/gntdev"
)

// Grants is how a device reaches the guest's memory. See XenGrants.
type Grants interface {
	// Map maps the pages of a shared ring, writable, in one piece.
	Map(dom abi.DomID, refs []abi.GrantRef) (Mapping, error)
	// Copy does every segment and sets the status of each.
	Copy(segs []gntdev.CopySegment) error
}

// Mapping is guest memory mapped by Grants.
type Mapping interface {
	Bytes() []byte
	Close() error
}

// Events are the event channels of a device; *evtchn.Handle is one.
type Events interface {
	BindInterdomain(dom abi.DomID, remote abi.Port) (abi.Port, error)
	Unbind(port abi.Port) error
	Notify(port abi.Port) error
	Unmask(ports ...abi.Port) error
}

// XenGrants is Grants over /dev/xen/gntdev.
func XenGrants(d *gntdev.Device) Grants { return xenGrants{d} }

type xenGrants struct{ *gntdev.Device }

func (x xenGrants) Map(dom abi.DomID, refs []abi.GrantRef) (Mapping, error) {
	m, err := x.Device.Map(dom, refs, true)
	if err != nil {
		return nil, err
	}
	return m, nil
}
