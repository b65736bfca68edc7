// SPDX-License-Identifier: Apache-2.0

package abi

import "structs"

// Ioctl requests of Linux's Xen devices: _IOC(_IOC_NONE, type, nr, size), which
// is size<<16 | type<<8 | nr. See tools/include/xen-sys/Linux/{privcmd,evtchn,
// gntdev}.h.
const (
	IoctlPrivcmdHypercall    = 48<<16 | 'P'<<8 | 0
	IoctlPrivcmdMmapBatchV2  = 32<<16 | 'P'<<8 | 4
	IoctlPrivcmdMmapResource = 32<<16 | 'P'<<8 | 7

	IoctlEvtchnBindVirq        = 4<<16 | 'E'<<8 | 0
	IoctlEvtchnBindInterdomain = 8<<16 | 'E'<<8 | 1
	IoctlEvtchnBindUnboundPort = 4<<16 | 'E'<<8 | 2
	IoctlEvtchnUnbind          = 4<<16 | 'E'<<8 | 3
	IoctlEvtchnNotify          = 4<<16 | 'E'<<8 | 4
	IoctlEvtchnReset           = 'E'<<8 | 5

	IoctlGntdevMapGrantRef   = 24<<16 | 'G'<<8 | 0
	IoctlGntdevUnmapGrantRef = 16<<16 | 'G'<<8 | 1
	IoctlGntdevGrantCopy     = 16<<16 | 'G'<<8 | 8
)

// PrivcmdHypercall is struct privcmd_hypercall.
type PrivcmdHypercall struct {
	_   structs.HostLayout
	Op  uint64
	Arg [5]uint64
}

// PrivcmdMmapBatchV2 is struct privcmd_mmapbatch_v2. Arr and Err point to
// ordinary memory of the process: *GFN and *int32.
type PrivcmdMmapBatchV2 struct {
	_    structs.HostLayout
	Num  uint32
	Dom  DomID
	_    uint16
	Addr uint64
	Arr  *GFN
	Err  *int32
}

// PrivcmdMmapResource is struct privcmd_mmap_resource.
type PrivcmdMmapResource struct {
	_    structs.HostLayout
	Dom  DomID
	_    uint16
	Type uint32
	ID   uint32 `c:"id"`
	Idx  uint32
	Num  uint64
	Addr uint64
}

// EvtchnBindInterdomain is struct ioctl_evtchn_bind_interdomain.
type EvtchnBindInterdomain struct {
	_            structs.HostLayout
	RemoteDomain uint32
	RemotePort   Port
}

// GntdevGrantRef is struct ioctl_gntdev_grant_ref.
type GntdevGrantRef struct {
	_     structs.HostLayout
	DomID uint32 `c:"domid"`
	Ref   GrantRef
}

// GntdevMapGrantRef is struct ioctl_gntdev_map_grant_ref; Count-1 more
// GntdevGrantRef follow it in memory.
type GntdevMapGrantRef struct {
	_     structs.HostLayout
	Count uint32
	_     uint32
	Index uint64
	Refs  [1]GntdevGrantRef
}

// GntdevUnmapGrantRef is struct ioctl_gntdev_unmap_grant_ref.
type GntdevUnmapGrantRef struct {
	_     structs.HostLayout
	Index uint64
	Count uint32
	_     uint32
}

// Flags of a copy segment (GNTCOPY_*, grant_table.h).
const (
	GntcopySourceGref = 1 << 0
	GntcopyDestGref   = 1 << 1
)

// GntdevCopySegment is struct ioctl_gntdev_grant_copy_segment. Source and Dest
// are unions: the virtual address of local memory, or GntdevForeign.
type GntdevCopySegment struct {
	_      structs.HostLayout
	Source uint64
	Dest   uint64
	Len    uint16
	Flags  uint16
	Status GrantStatus
	_      uint16
}

// GntdevForeign packs the foreign member of the unions in GntdevCopySegment:
// ref uint32, offset uint16, domid uint16.
func GntdevForeign(ref GrantRef, offset uint16, dom DomID) uint64 {
	return uint64(ref) | uint64(offset)<<32 | uint64(dom)<<48
}

// GntdevGrantCopy is struct ioctl_gntdev_grant_copy.
type GntdevGrantCopy struct {
	_        structs.HostLayout
	Count    uint32
	_        uint32
	Segments *GntdevCopySegment
}
