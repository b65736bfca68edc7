// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"encoding/binary"
	"strconv"
	"structs"
)

// GNTTABOP_*. See xen/include/public/grant_table.h.
const (
	GnttabOpSetupTable = 2
	GnttabOpQuerySize  = 6
)

// GrantStatus is enum grant_status (GNTST_*).
type GrantStatus int16

// GNTST_*. See xen/include/public/grant_table.h.
const (
	GNTSTOkay             GrantStatus = 0
	GNTSTGeneralError     GrantStatus = -1
	GNTSTBadDomain        GrantStatus = -2
	GNTSTBadGntref        GrantStatus = -3
	GNTSTBadHandle        GrantStatus = -4
	GNTSTBadVirtAddr      GrantStatus = -5
	GNTSTBadDevAddr       GrantStatus = -6
	GNTSTNoDeviceSpace    GrantStatus = -7
	GNTSTPermissionDenied GrantStatus = -8
	GNTSTBadPage          GrantStatus = -9
	GNTSTBadCopyArg       GrantStatus = -10
	GNTSTAddressTooBig    GrantStatus = -11
	GNTSTEagain           GrantStatus = -12
	GNTSTNoSpace          GrantStatus = -13
)

var grantStatusNames = [...]string{
	"GNTST_okay", "GNTST_general_error", "GNTST_bad_domain", "GNTST_bad_gntref",
	"GNTST_bad_handle", "GNTST_bad_virt_addr", "GNTST_bad_dev_addr",
	"GNTST_no_device_space", "GNTST_permission_denied", "GNTST_bad_page",
	"GNTST_bad_copy_arg", "GNTST_address_too_big", "GNTST_eagain", "GNTST_no_space",
}

// String returns the name in grant_table.h.
func (s GrantStatus) String() string {
	if i := -int(s); i >= 0 && i < len(grantStatusNames) {
		return grantStatusNames[i]
	}
	return "GNTST_" + strconv.Itoa(int(s))
}

// Flags of a grant entry (GTF_*).
const (
	GTFInvalid        = 0
	GTFPermitAccess   = 1
	GTFAcceptTransfer = 2
	GTFTypeMask       = 3
	GTFReadonly       = 1 << 2
	GTFReading        = 1 << 3
	GTFWriting        = 1 << 4
	GTFSubPage        = 1 << 8
)

// Reserved entries at the start of every grant table.
const (
	GnttabNrReservedEntries = 8
	GnttabReservedConsole   = 0
	GnttabReservedXenstore  = 1
)

// GrantEntryV1 is struct grant_entry_v1.
type GrantEntryV1 struct {
	_     structs.HostLayout
	Flags uint16
	DomID DomID `c:"domid"`
	Frame uint32
}

// DecodeGrantEntryV1 reads an entry of a grant table, all of it at once: others
// may be writing to it.
func DecodeGrantEntryV1(b []byte) GrantEntryV1 {
	v := binary.LittleEndian.Uint64(b)
	return GrantEntryV1{Flags: uint16(v), DomID: DomID(v >> 16), Frame: uint32(v >> 32)}
}

// Grants says whether the entry lets DomID do anything. Of the types
// GTF_transitive grants nothing in version 1: _set_status_v1() and
// gnttab_prepare_for_transfer() of xen/common/grant_table.c refuse it.
func (e GrantEntryV1) Grants() bool {
	kind := e.Flags & GTFTypeMask
	return kind == GTFPermitAccess || kind == GTFAcceptTransfer
}

// GnttabSetupTable is struct gnttab_setup_table.
type GnttabSetupTable struct {
	_         structs.HostLayout
	Dom       DomID
	_         uint16
	NrFrames  uint32
	Status    GrantStatus
	_         [3]uint16
	FrameList uint64 // guest handle of xen_pfn_t
}

// GnttabQuerySize is struct gnttab_query_size.
type GnttabQuerySize struct {
	_           structs.HostLayout
	Dom         DomID
	_           uint16
	NrFrames    uint32
	MaxNrFrames uint32
	Status      GrantStatus
	_           uint16
}
