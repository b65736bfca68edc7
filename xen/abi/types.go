// SPDX-License-Identifier: Apache-2.0

package abi

import "strconv"

// DomID is a domain identifier (domid_t).
type DomID uint16

// String formats the id as Xen's own log does.
func (d DomID) String() string { return "d" + strconv.Itoa(int(d)) }

// VCPU is a virtual CPU number.
type VCPU uint32

// GFN is a guest frame number: an index into a domain's physical address space.
type GFN uint64

// GrantRef is a grant reference (grant_ref_t).
type GrantRef uint32

// Port is an event channel port (evtchn_port_t).
type Port uint32

// Pages. x86 has one page size for everything in this interface.
const (
	PageShift = 12
	PageSize  = 1 << PageShift
)

// Domain ids. See xen/include/public/xen.h.
const (
	Dom0               DomID = 0
	DomIDFirstReserved DomID = 0x7ff0
	DomIDSelf          DomID = 0x7ff0
	DomIDIO            DomID = 0x7ff1
	DomIDXen           DomID = 0x7ff2
	DomIDInvalid       DomID = 0x7ff4
)

// InvalidGFN is what Xen returns for "no gfn" (xen/include/xen/mm-frame.h).
const InvalidGFN = ^GFN(0)

// Hypercall numbers. See xen/include/public/xen.h.
const (
	HypervisorMemoryOp       = 12
	HypervisorXenVersion     = 17
	HypervisorGrantTableOp   = 20
	HypervisorSchedOp        = 29
	HypervisorEventChannelOp = 32
	HypervisorHVMOp          = 34
	HypervisorSysctl         = 35
	HypervisorDomctl         = 36
)

// Virtual interrupts. See xen/include/public/xen.h.
const (
	VIRQTimer  = 0
	VIRQDebug  = 1
	VIRQDomExc = 3
	VIRQXenPMU = 13
)

// Map spaces of XENMEM_add_to_physmap. See xen/include/public/memory.h.
const (
	MapSpaceSharedInfo = 0
	MapSpaceGrantTable = 1
)

// Reasons of SCHEDOP_remote_shutdown. See xen/include/public/sched.h.
const (
	ShutdownPoweroff  = 0
	ShutdownReboot    = 1
	ShutdownSuspend   = 2
	ShutdownCrash     = 3
	ShutdownWatchdog  = 4
	ShutdownSoftReset = 5
)

// SCHEDOP_*. See xen/include/public/sched.h.
const SchedOpRemoteShutdown = 4

// SchedRemoteShutdown is struct sched_remote_shutdown.
type SchedRemoteShutdown struct {
	DomainID DomID
	_        uint16
	Reason   uint32
}

// XENVER_*. See xen/include/public/version.h.
const (
	XenverVersion      = 0
	XenverExtraversion = 1
	XenverCapabilities = 3
	XenverGetFeatures  = 6

	XenExtraversionLen     = 16
	XenCapabilitiesInfoLen = 1024
)

// XenFeatureInfo is struct xen_feature_info.
type XenFeatureInfo struct {
	SubmapIdx uint32
	Submap    uint32
}
