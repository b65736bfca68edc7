// SPDX-License-Identifier: Apache-2.0

package abi

import "structs"

// SringHeader is what every shared ring begins with: the indices of
// DEFINE_RING_TYPES in xen/include/public/io/ring.h. The entries follow at
// SringEntriesOffset. Indices are free running; the peer can write any of them
// at any time.
type SringHeader struct {
	_        structs.HostLayout
	ReqProd  uint32
	ReqEvent uint32
	RspProd  uint32
	RspEvent uint32
	_        [48]byte
}

// SringEntriesOffset is the offset of the first entry of a shared ring.
const SringEntriesOffset = 64

// Operations, limits, flags and answers of the block protocol. See
// xen/include/public/io/blkif.h.
const (
	BlkifOpRead           = 0
	BlkifOpWrite          = 1
	BlkifOpWriteBarrier   = 2
	BlkifOpFlushDiskcache = 3
	BlkifOpDiscard        = 5
	BlkifOpIndirect       = 6

	BlkifMaxSegmentsPerRequest      = 11
	BlkifMaxIndirectPagesPerRequest = 8
	// BlkifSegsPerIndirectFrame is how many BlkifRequestSegment a page holds.
	BlkifSegsPerIndirectFrame = PageSize / 8

	BlkifDiscardSecure = 1 << 0

	BlkifRspEOPNOTSUPP = -2
	BlkifRspError      = -1
	BlkifRspOkay       = 0

	VDiskCDROM     = 1
	VDiskRemovable = 2
	VDiskReadonly  = 4
)

// BlkifRequestSegment is struct blkif_request_segment.
type BlkifRequestSegment struct {
	_         structs.HostLayout
	Gref      GrantRef
	FirstSect uint8
	LastSect  uint8
	_         [2]uint8
}

// BlkifRequest is struct blkif_request.
type BlkifRequest struct {
	_            structs.HostLayout
	Operation    uint8
	NrSegments   uint8
	Handle       uint16
	_            uint32
	ID           uint64 `c:"id"`
	SectorNumber uint64
	Seg          [BlkifMaxSegmentsPerRequest]BlkifRequestSegment
}

// BlkifRequestDiscard is struct blkif_request_discard.
type BlkifRequestDiscard struct {
	_            structs.HostLayout
	Operation    uint8
	Flag         uint8
	Handle       uint16
	_            uint32
	ID           uint64 `c:"id"`
	SectorNumber uint64
	NrSectors    uint64
}

// BlkifRequestIndirect is struct blkif_request_indirect.
type BlkifRequestIndirect struct {
	_             structs.HostLayout
	Operation     uint8
	IndirectOp    uint8
	NrSegments    uint16
	_             uint32
	ID            uint64 `c:"id"`
	SectorNumber  uint64
	Handle        uint16
	_             uint16
	IndirectGrefs [BlkifMaxIndirectPagesPerRequest]GrantRef
	_             uint32
}

// BlkifResponse is struct blkif_response.
type BlkifResponse struct {
	_         structs.HostLayout
	ID        uint64 `c:"id"`
	Operation uint8
	_         uint8
	Status    int16
	_         uint32
}

// Sizes of the ring entries: the larger of request and response.
const (
	BlkifSringEntrySize   = 112
	NetifTxSringEntrySize = 12
	NetifRxSringEntrySize = 8
)

// Flags and answers of the network protocol. See xen/include/public/io/netif.h.
const (
	NetTxfCsumBlank     = 1 << 0
	NetTxfDataValidated = 1 << 1
	NetTxfMoreData      = 1 << 2
	NetTxfExtraInfo     = 1 << 3

	NetRxfDataValidated = 1 << 0
	NetRxfCsumBlank     = 1 << 1
	NetRxfMoreData      = 1 << 2
	NetRxfExtraInfo     = 1 << 3

	NetifRspDropped = -2
	NetifRspError   = -1
	NetifRspOkay    = 0
	NetifRspNull    = 1

	NetifExtraTypeGSO      = 1
	NetifExtraTypeMcastAdd = 2
	NetifExtraTypeMcastDel = 3
	NetifExtraTypeHash     = 4

	NetifExtraFlagMore = 1 << 0

	NetifGSOTypeTCPv4 = 1
	NetifGSOTypeTCPv6 = 2

	NetifNrSlotsMin = 18
)

// NetifTxRequest is struct netif_tx_request.
type NetifTxRequest struct {
	_      structs.HostLayout
	Gref   GrantRef
	Offset uint16
	Flags  uint16
	ID     uint16 `c:"id"`
	Size   uint16
}

// NetifTxResponse is struct netif_tx_response.
type NetifTxResponse struct {
	_      structs.HostLayout
	ID     uint16 `c:"id"`
	Status int16
}

// NetifRxRequest is struct netif_rx_request.
type NetifRxRequest struct {
	_    structs.HostLayout
	ID   uint16 `c:"id"`
	_    uint16
	Gref GrantRef
}

// NetifRxResponse is struct netif_rx_response.
type NetifRxResponse struct {
	_      structs.HostLayout
	ID     uint16 `c:"id"`
	Offset uint16
	Flags  uint16
	Status int16
}

// NetifExtraInfo is struct netif_extra_info; U is its union, for GSO:
// size uint16, type uint8, pad uint8, features uint16.
type NetifExtraInfo struct {
	_     structs.HostLayout
	Type  uint8
	Flags uint8
	U     [6]uint8
}

// XenbusState is enum xenbus_state. See xen/include/public/io/xenbus.h.
type XenbusState uint32

// Xenbus states.
const (
	XenbusUnknown       XenbusState = 0
	XenbusInitialising  XenbusState = 1
	XenbusInitWait      XenbusState = 2
	XenbusInitialised   XenbusState = 3
	XenbusConnected     XenbusState = 4
	XenbusClosing       XenbusState = 5
	XenbusClosed        XenbusState = 6
	XenbusReconfiguring XenbusState = 7
	XenbusReconfigured  XenbusState = 8
)

var xenbusStateNames = [...]string{
	"Unknown", "Initialising", "InitWait", "Initialised", "Connected",
	"Closing", "Closed", "Reconfiguring", "Reconfigured",
}

// String returns the state's name without its prefix.
func (s XenbusState) String() string {
	if int(s) < len(xenbusStateNames) {
		return xenbusStateNames[s]
	}
	return "Invalid"
}

// XenconsInterface is struct xencons_interface: the console ring page. See
// xen/include/public/io/console.h.
type XenconsInterface struct {
	_       structs.HostLayout
	In      [1024]byte
	Out     [2048]byte
	InCons  uint32
	InProd  uint32
	OutCons uint32
	OutProd uint32
}
