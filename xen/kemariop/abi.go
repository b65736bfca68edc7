// SPDX-License-Identifier: Apache-2.0

// Package kemariop is the client of XEN_DOMCTL_kemari_op, the hypervisor's side
// of keeping a running HVM or PVH domain in step with a copy on another host:
// a tap on its event channels, the list of its dirty pages, and the guest state
// that the HVM context does not hold. The interface is defined, and its rules
// are written down, in xen/include/public/kemari.h of the patched hypervisor.
package kemariop

import (
	"structs"

	"github.com/kemari-ft/kemari/xen/abi"
)

//go:generate go test . -run TestGolden -update

// Interface numbers. See kemari.h, domctl.h and memory.h.
const (
	InterfaceVersion = 1
	DomctlKemariOp   = 91
	ResourceKemari   = 3
)

// XEN_KEMARI_OP_*.
const (
	opEnable   = 0
	opDisable  = 1
	opTap      = 2
	opSync     = 3
	opRelease  = 4
	opDeliver  = 5
	opSetState = 6
	opResume   = 7
	opStatus   = 8
	opHot      = 9
	opWarm     = 10
)

// Role is what a domain is to Kemari.
type Role uint32

// XEN_KEMARI_ROLE_*.
const (
	RoleNone      Role = 0
	RolePrimary   Role = 1
	RoleSecondary Role = 2
)

func (r Role) String() string {
	switch r {
	case RoleNone:
		return "none"
	case RolePrimary:
		return "primary"
	case RoleSecondary:
		return "secondary"
	}
	return "invalid"
}

// State bits of Status (XEN_KEMARI_TRIGGERED and so on).
const (
	StateTriggered   = 1 << 0 // paused by tap, mark or sync
	StateFrozen      = 1 << 1 // since the last sync
	StateHarvested   = 1 << 2 // the results of the last sync are valid
	StateUncommitted = 1 << 3 // running, output held
	StateHeld        = 1 << 4 // some event is held
	StateSet         = 1 << 5 // secondary: SetState was done
)

// TapMode is what happens to the events which the domain sends on a port.
type TapMode uint32

// XEN_KEMARI_TAP_*.
const (
	TapHold TapMode = 0 // hold and trigger (default)
	TapPass TapMode = 1 // let pass, note that the port was used
)

// SyncLost, in SyncResult.Flags: the dirty list is incomplete, copy all memory.
const SyncLost = 1 << 0

const syncHarvest = 1 << 0

// ReleaseFlags say what Release lets go.
type ReleaseFlags uint32

// XEN_KEMARI_RELEASE_*.
const (
	ReleaseOut     ReleaseFlags = 1 << 0 // deliver what the domain had sent
	ReleaseUnpause ReleaseFlags = 1 << 1 // deliver parked events, run the vCPUs
)

// Limits and markers.
const (
	StateMax  = 1 << 20
	HotMax    = 1024
	WarmMax   = 4096
	Near      = 8 // pages that lie beside each other, see Client.Warm
	MaxPorts  = 4096
	magic     = 0x4952414d454b4e58
	NoAddr    = ^uint64(0)
	DirtyP2M  = 1 << 63
	dirtyMask = 1<<52 - 1

	alwaysGFNMask   = 1<<44 - 1
	alwaysIdxMask   = 0xfff
	alwaysIdxShift  = 44
	alwaysKindShift = 56
)

// XEN_KEMARI_ALWAYS_*: kinds of pages that Xen writes without logging.
const (
	AlwaysSharedInfo = 0
	AlwaysGrant      = 1 // index: number of the frame
	AlwaysFIFO       = 2 // event array page or control block
	AlwaysVCPU       = 3 // vcpu_info, runstate or time area
)

// Trigger is why a domain was paused.
type Trigger uint32

// XEN_KEMARI_TRIGGER_*.
const (
	TriggerNone  Trigger = 0
	TriggerEvent Trigger = 1 // the domain sent an event
	TriggerMark  Trigger = 2 // the dirty list reached its mark
	TriggerSync  Trigger = 3 // Sync itself
	TriggerHeld  Trigger = 4 // events were held while uncommitted
)

func (t Trigger) String() string {
	switch t {
	case TriggerNone:
		return "none"
	case TriggerEvent:
		return "event"
	case TriggerMark:
		return "mark"
	case TriggerSync:
		return "sync"
	case TriggerHeld:
		return "held"
	}
	return "invalid"
}

// domctlKemariOp is struct xen_domctl_kemari_op.
type domctlKemariOp struct {
	_     structs.HostLayout
	Op    uint32
	Flags uint32
	U     [8]uint64
}

// enableArgs is struct xen_kemari_enable.
type enableArgs struct {
	_         structs.HostLayout
	Version   uint32
	Role      Role
	DirtyMax  uint32
	DirtyMark uint32
}

// statusArgs is struct xen_kemari_status.
type statusArgs struct {
	_         structs.HostLayout
	Version   uint32
	Role      Role
	State     uint32
	Port      abi.Port
	NrFrames  uint32
	DirtyMax  uint32
	DirtyMark uint32
	_         uint32
}

// tapArgs is struct xen_kemari_tap.
type tapArgs struct {
	_    structs.HostLayout
	Port abi.Port
	Mode TapMode
}

// SyncResult is what a harvest found (struct xen_kemari_sync).
type SyncResult struct {
	_         structs.HostLayout
	Epoch     uint64 // number of harvests so far, from 1
	DirtyHalf uint32 // which half of the dirty list was closed: 0 or 1
	DirtyNr   uint32 // entries in it
	Flags     uint32 // SyncLost
	AlwaysNr  uint32
	StateLen  uint32 // bytes
	_         uint32
}

// releaseArgs is struct xen_kemari_release.
type releaseArgs struct {
	_     structs.HostLayout
	Epoch uint64
}

// stateArgs is struct xen_kemari_state.
type stateArgs struct {
	_      structs.HostLayout
	Buffer uint64
	Size   uint32
	_      uint32
}

// gfnArgs is struct xen_kemari_gfns.
type gfnArgs struct {
	_    structs.HostLayout
	GFNs uint64 `c:"gfns"`
	Nr   uint32
	_    uint32
}

// sharedHeader is struct xen_kemari_shared.
type sharedHeader struct {
	_             structs.HostLayout
	Magic         uint64
	Version       uint32
	NrFrames      uint32
	DirtyOff      [2]uint32
	DirtyMax      uint32
	AlwaysOff     uint32
	AlwaysMax     uint32
	StateOff      uint32
	StateMax      uint32
	TriggerPort   abi.Port
	TriggerReason Trigger
	_             uint32
	TTrigger      uint64
	TFrozen       uint64
	THarvested    uint64
	Sync          SyncResult
	Used          [MaxPorts / 64]uint64
}
