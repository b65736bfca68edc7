// SPDX-License-Identifier: Apache-2.0

package abi

import "structs"

// Message types of the xenstore protocol (enum xsd_sockmsg_type). See
// xen/include/public/io/xs_wire.h.
const (
	XSControl            = 0
	XSDirectory          = 1
	XSRead               = 2
	XSGetPerms           = 3
	XSWatch              = 4
	XSUnwatch            = 5
	XSTransactionStart   = 6
	XSTransactionEnd     = 7
	XSIntroduce          = 8
	XSRelease            = 9
	XSGetDomainPath      = 10
	XSWrite              = 11
	XSMkdir              = 12
	XSRm                 = 13
	XSSetPerms           = 14
	XSWatchEvent         = 15
	XSError              = 16
	XSIsDomainIntroduced = 17
	XSResume             = 18
	XSSetTarget          = 19
	XSResetWatches       = 21
	XSDirectoryPart      = 22
)

// Limits of the xenstore protocol.
const (
	XenstorePayloadMax = 4096
	XenstoreAbsPathMax = 3072
	XenstoreRelPathMax = 2048
	XenstoreRingSize   = 1024
)

// XsdSockmsg is struct xsd_sockmsg, the header of every message.
type XsdSockmsg struct {
	_     structs.HostLayout
	Type  uint32
	ReqID uint32
	TxID  uint32
	Len   uint32
}

// XenstoreDomainInterface is struct xenstore_domain_interface: the ring page
// between a domain and xenstored.
type XenstoreDomainInterface struct {
	_              structs.HostLayout
	Req            [XenstoreRingSize]byte
	Rsp            [XenstoreRingSize]byte
	ReqCons        uint32
	ReqProd        uint32
	RspCons        uint32
	RspProd        uint32
	ServerFeatures uint32
	Connection     uint32
	Error          uint32
}
