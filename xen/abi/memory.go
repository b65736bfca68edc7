// SPDX-License-Identifier: Apache-2.0

package abi

import "structs"

// XENMEM_*. See xen/include/public/memory.h.
const (
	MemDecreaseReservation = 1
	MemPopulatePhysmap     = 6
	MemAddToPhysmap        = 7
	MemMaximumGPFN         = 14
	MemRemoveFromPhysmap   = 15
)

// Resource types of XENMEM_acquire_resource.
const (
	ResourceGrantTable         = 1
	ResourceGrantTableIDShared = 0
)

// MemoryReservation is struct xen_memory_reservation.
type MemoryReservation struct {
	_           structs.HostLayout
	ExtentStart uint64 // guest handle of xen_pfn_t
	NrExtents   uint64
	ExtentOrder uint32
	MemFlags    uint32
	DomID       DomID `c:"domid"`
	_           [3]uint16
}

// MemoryDomain is struct xen_memory_domain.
type MemoryDomain struct {
	DomID DomID `c:"domid"`
}

// AddToPhysmap is struct xen_add_to_physmap.
type AddToPhysmap struct {
	_     structs.HostLayout
	DomID DomID `c:"domid"`
	Size  uint16
	Space uint32
	Idx   uint64
	GPFN  GFN
}

// RemoveFromPhysmap is struct xen_remove_from_physmap.
type RemoveFromPhysmap struct {
	_     structs.HostLayout
	DomID DomID `c:"domid"`
	_     [3]uint16
	GPFN  GFN
}

// EVTCHNOP_*. See xen/include/public/event_channel.h.
const (
	EvtchnOpStatus       = 5
	EvtchnOpAllocUnbound = 6
)

// EVTCHNSTAT_*.
const (
	EvtchnStatClosed      = 0
	EvtchnStatUnbound     = 1
	EvtchnStatInterdomain = 2
	EvtchnStatPIRQ        = 3
	EvtchnStatVIRQ        = 4
	EvtchnStatIPI         = 5
)

// EvtchnStatus is struct evtchn_status; U is its union: word 0 holds the virq,
// the pirq, or in its low half the domid of the peer; word 1 the peer's port.
type EvtchnStatus struct {
	_      structs.HostLayout
	Dom    DomID
	_      uint16
	Port   Port
	Status uint32
	VCPU   VCPU `c:"vcpu"`
	U      [2]uint32
}

// EvtchnAllocUnbound is struct evtchn_alloc_unbound.
type EvtchnAllocUnbound struct {
	_         structs.HostLayout
	Dom       DomID
	RemoteDom DomID
	Port      Port
}

// HVMOP_*. See xen/include/public/hvm/hvm_op.h.
const HVMOpGetParam = 1

// HVMParam is struct xen_hvm_param.
type HVMParam struct {
	_     structs.HostLayout
	DomID DomID `c:"domid"`
	_     uint16
	Index uint32
	Value uint64
}

// HVM_PARAM_*. See xen/include/public/hvm/params.h.
const (
	HVMParamStorePFN            = 1
	HVMParamStoreEvtchn         = 2
	HVMParamIdentPT             = 12
	HVMParamVM86TSS             = 15
	HVMParamConsolePFN          = 17
	HVMParamConsoleEvtchn       = 18
	HVMParamACPIIOPortsLocation = 19
	HVMParamPagingRingPFN       = 27
	HVMParamMonitorRingPFN      = 28
	HVMParamSharingRingPFN      = 29
	HVMParamIOReqServerPFN      = 32
	HVMParamNrIOReqServerPages  = 33
	HVMParamVMGenerationIDAddr  = 34
	HVMParamX87FIPWidth         = 36
	HVMParamVM86TSSSized        = 37
	HVMParamMCACap              = 38
	HVMNrParams                 = 39
)
