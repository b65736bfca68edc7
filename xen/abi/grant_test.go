// SPDX-License-Identifier: Apache-2.0

package abi

import "testing"

func TestGrantEntry(t *testing.T) {
	for _, tc := range []struct {
		what   string
		octets [8]byte
		want   GrantEntryV1
		grants bool
	}{
		{"free", [8]byte{}, GrantEntryV1{}, false},
		{"what xl gives xenstored", [8]byte{1, 0, 0, 0, 0xfc, 0xff, 0x0f, 0}, GrantEntryV1{Flags: GTFPermitAccess, Frame: 0xffffc}, true},
		{"mapped", [8]byte{0x1d, 0, 0x34, 0x12, 0x78, 0x56, 0x34, 0x12},
			GrantEntryV1{Flags: GTFPermitAccess | GTFReadonly | GTFReading | GTFWriting, DomID: 0x1234, Frame: 0x12345678}, true},
		{"a part of a page", [8]byte{1, 1, 5}, GrantEntryV1{Flags: GTFPermitAccess | GTFSubPage, DomID: 5}, true},
		{"a transfer", [8]byte{2, 0, 5}, GrantEntryV1{Flags: GTFAcceptTransfer, DomID: 5}, true},
		{"a completed transfer", [8]byte{0xe, 0, 5}, GrantEntryV1{Flags: GTFAcceptTransfer | 0xc, DomID: 5}, true},
		{"transitive", [8]byte{3, 0, 5}, GrantEntryV1{Flags: 3, DomID: 5}, false},
		{"freed, the domid left", [8]byte{0, 0, 5}, GrantEntryV1{DomID: 5}, false},
		{"flags without a type", [8]byte{0x1c, 1, 5}, GrantEntryV1{Flags: 0x11c, DomID: 5}, false},
	} {
		if got := DecodeGrantEntryV1(tc.octets[:]); got != tc.want || got.Grants() != tc.grants {
			t.Errorf("%s: %+v, grants: %v", tc.what, got, got.Grants())
		}
	}
}
