// SPDX-License-Identifier: Apache-2.0

package abi

import "structs"

// Interface versions. Xen answers -EACCES to any other. See
// xen/include/public/domctl.h and sysctl.h.
const (
	DomctlInterfaceVersion = 0x17
	SysctlInterfaceVersion = 0x15
)

// XEN_DOMCTL_* commands. See xen/include/public/domctl.h.
const (
	DomctlDestroyDomain        = 2
	DomctlPauseDomain          = 3
	DomctlUnpauseDomain        = 4
	DomctlGetDomainInfo        = 5
	DomctlShadowOp             = 10
	DomctlSendTrigger          = 28
	DomctlGetHVMContext        = 33
	DomctlSetHVMContext        = 34
	DomctlGetTSCInfo           = 59
	DomctlSetTSCInfo           = 60
	DomctlGetPagingMempoolSize = 85
)

// Domctl is struct xen_domctl. U is the union; the sub-command's struct is laid
// over its first bytes.
type Domctl struct {
	_                structs.HostLayout
	Cmd              uint32
	InterfaceVersion uint32
	Domain           DomID
	_                [3]uint16
	U                [16]uint64
}

// Flags of DomctlDomainInfo (XEN_DOMINF_*).
const (
	DomInfDying         = 1 << 0
	DomInfHVMGuest      = 1 << 1
	DomInfShutdown      = 1 << 2
	DomInfPaused        = 1 << 3
	DomInfBlocked       = 1 << 4
	DomInfRunning       = 1 << 5
	DomInfDebugged      = 1 << 6
	DomInfXSDomain      = 1 << 7
	DomInfHAP           = 1 << 8
	DomInfShutdownMask  = 255
	DomInfShutdownShift = 16
)

// InvalidMaxVCPUID is max_vcpu_id of a domain without vCPUs.
const InvalidMaxVCPUID = ^uint32(0)

// ArchDomainConfig is struct xen_arch_domainconfig (arch-x86/xen.h).
type ArchDomainConfig struct {
	_              structs.HostLayout
	EmulationFlags uint32 // XEN_X86_EMU_*
	MiscFlags      uint32
}

// X86EmuLAPIC is the only emulation flag of a PVH domain (XEN_X86_EMU_LAPIC).
const X86EmuLAPIC = 1 << 0

// DomctlDomainInfo is struct xen_domctl_getdomaininfo.
type DomctlDomainInfo struct {
	_                structs.HostLayout
	Domain           DomID
	_                uint16
	Flags            uint32
	TotPages         uint64
	MaxPages         uint64
	OutstandingPages uint64
	ShrPages         uint64
	PagedPages       uint64
	SharedInfoFrame  GFN
	CPUTime          uint64 // ns
	NrOnlineVCPUs    uint32 `c:"nr_online_vcpus"`
	MaxVCPUID        uint32 `c:"max_vcpu_id"`
	SSIDRef          uint32 `c:"ssidref"`
	Handle           [16]byte
	CPUPool          uint32 `c:"cpupool"`
	GPAddrBits       uint8  `c:"gpaddr_bits"`
	_                [7]uint8
	ArchConfig       ArchDomainConfig
}

// Operations and modes of DomctlShadowOpArgs (XEN_DOMCTL_SHADOW_*).
const (
	ShadowOpOff            = 0
	ShadowOpClean          = 11
	ShadowOpPeek           = 12
	ShadowOpEnableLogDirty = 2
)

// DomctlShadowOpArgs is struct xen_domctl_shadow_op.
type DomctlShadowOpArgs struct {
	_           structs.HostLayout
	Op          uint32
	Mode        uint32
	MB          uint32 `c:"mb"`
	_           uint32
	DirtyBitmap uint64 // guest handle of bytes
	Pages       uint64 // in: size of the bitmap in pages; out: pages written
	FaultCount  uint32 `c:"stats.fault_count"`
	DirtyCount  uint32 `c:"stats.dirty_count"`
}

// DomctlHVMContext is struct xen_domctl_hvmcontext.
type DomctlHVMContext struct {
	_      structs.HostLayout
	Size   uint32
	_      uint32
	Buffer uint64
}

// Modes of DomctlTSCInfo (XEN_CPUID_TSC_MODE_*, arch-x86/cpuid.h).
const (
	TSCModeDefault       = 0
	TSCModeAlwaysEmulate = 1
	TSCModeNeverEmulate  = 2
)

// DomctlTSCInfo is struct xen_domctl_tsc_info.
type DomctlTSCInfo struct {
	_           structs.HostLayout
	TSCMode     uint32 `c:"tsc_mode"`
	GTSCkHz     uint32 `c:"gtsc_khz"`
	Incarnation uint32
	_           uint32
	ElapsedNsec uint64
}

// Triggers of DomctlSendTriggerArgs (XEN_DOMCTL_SENDTRIGGER_*).
const (
	TriggerNMI   = 0
	TriggerReset = 1
	TriggerPower = 3
	TriggerSleep = 4
)

// DomctlSendTriggerArgs is struct xen_domctl_sendtrigger.
type DomctlSendTriggerArgs struct {
	_       structs.HostLayout
	Trigger uint32
	VCPU    VCPU `c:"vcpu"`
}

// DomctlPagingMempool is struct xen_domctl_paging_mempool.
type DomctlPagingMempool struct {
	_    structs.HostLayout
	Size uint64 // bytes
}

// SysctlPhysinfo is XEN_SYSCTL_physinfo (sysctl.h).
const SysctlPhysinfo = 3

// Sysctl is struct xen_sysctl.
type Sysctl struct {
	_                structs.HostLayout
	Cmd              uint32
	InterfaceVersion uint32
	U                [16]uint64
}

// SysctlPhysinfoArgs is struct xen_sysctl_physinfo.
type SysctlPhysinfoArgs struct {
	_                structs.HostLayout
	ThreadsPerCore   uint32
	CoresPerSocket   uint32
	NrCPUs           uint32 `c:"nr_cpus"`
	MaxCPUID         uint32 `c:"max_cpu_id"`
	NrNodes          uint32
	MaxNodeID        uint32
	CPUkHz           uint32 `c:"cpu_khz"`
	Capabilities     uint32
	ArchCapabilities uint32
	_                uint32
	TotalPages       uint64
	FreePages        uint64
	ScrubPages       uint64
	OutstandingPages uint64
	MaxMFN           uint64
	HWCap            [8]uint32
}

// Capability bits of SysctlPhysinfoArgs (XEN_SYSCTL_PHYSCAP_*).
const (
	PhysCapHVM = 1 << 0
	PhysCapHAP = 1 << 3
)
