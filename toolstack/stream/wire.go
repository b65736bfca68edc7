// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"fmt"
	"hash/crc32"

	"github.com/kemari-ft/kemari/xen/abi"
)

// Constants of the specification.  See docs/stream.md.
const (
	// Version of the stream that this package speaks.
	Version = 4

	marker    = ^uint64(0)
	ident     = 0x4b4d5249 // "KMRI"
	headerLen = 24

	recHeaderLen = 8
	// optionalBit marks records that a receiver may skip when it does not
	// know them.
	optionalBit = 0x80000000

	// MaxBatch is the largest number of pages in one PAGES or LINES record.
	MaxBatch = 256
	// MaxList is the largest number of gfns in one ZEROS or HOLES record.
	MaxList = 65536
	// MaxAlways is the largest number of always-sent pages of a guest.
	MaxAlways = 4096
	// MaxRings is the largest number of rings of a guest.
	MaxRings = 4096
	// MaxState bounds the STATE record: XEN_KEMARI_STATE_MAX (see
	// xen/include/public/kemari.h) plus as much for the HVM context.
	MaxState = 2 << 20
	// MaxXenstore bounds the XENSTORE record.
	MaxXenstore = 4 << 20
	// MaxShell bounds the opaque part of the SHELL record.
	MaxShell = 1 << 20
	// MaxOptional bounds an unknown optional record.
	MaxOptional = 1 << 20
	// MaxReasons and MaxReason bound the REFUSE record.
	MaxReasons = 64
	MaxReason  = 1024
	// MaxXenVersion bounds the version string in HELLO.
	MaxXenVersion = 256
	// MaxGFN is the highest gfn that any record may name: a 52 bit
	// physical address, the most that x86-64 can have.
	MaxGFN = abi.GFN(1)<<40 - 1
)

// RecordType is the type of a record.
type RecordType uint32

// The record types.
const (
	TypeHello      RecordType = 0x01
	TypeShell      RecordType = 0x02
	TypeEpochBegin RecordType = 0x03
	TypePages      RecordType = 0x04
	TypeZeros      RecordType = 0x05
	TypeHoles      RecordType = 0x06
	TypeAlways     RecordType = 0x07
	TypeState      RecordType = 0x08
	TypeRings      RecordType = 0x09
	TypeXenstore   RecordType = 0x0a
	TypeEpochEnd   RecordType = 0x0b
	TypeAck        RecordType = 0x0c
	TypeHeartbeat  RecordType = 0x0d
	TypeDiscard    RecordType = 0x0e
	TypeDiscarded  RecordType = 0x0f
	TypeEnd        RecordType = 0x10
	TypeLetGo      RecordType = 0x11
	TypeRefuse     RecordType = 0x12
	TypeLines      RecordType = 0x13
)

var typeNames = [...]string{
	TypeHello: "HELLO", TypeShell: "SHELL", TypeEpochBegin: "EPOCH_BEGIN",
	TypePages: "PAGES", TypeZeros: "ZEROS", TypeHoles: "HOLES",
	TypeAlways: "ALWAYS", TypeState: "STATE", TypeRings: "RINGS",
	TypeXenstore: "XENSTORE", TypeEpochEnd: "EPOCH_END", TypeAck: "ACK",
	TypeHeartbeat: "HEARTBEAT", TypeDiscard: "DISCARD",
	TypeDiscarded: "DISCARDED", TypeEnd: "END", TypeLetGo: "LET_GO",
	TypeRefuse: "REFUSE", TypeLines: "LINES",
}

func (t RecordType) String() string {
	if int64(t) < int64(len(typeNames)) && typeNames[t] != "" {
		return typeNames[t]
	}
	return fmt.Sprintf("type %#x", uint32(t))
}

// Fixed body lengths, in octets.
const (
	helloLen     = 80 // without the version string
	shellLen     = 24 // without the opaque part
	beginLen     = 24
	listLen      = 8 // count and reserved field before a list
	alwaysLen    = 16
	lineLen      = 16
	ringLen      = 16
	epochEndLen  = 56
	twoWordsLen  = 16
	oneWordLen   = 8
	beginFull    = 1 << 0
	alwaysHasImg = 1 << 0
	alwaysLines  = 1 << 1
	lineSetLen   = 8
)

// castagnoli is the polynomial that SSE4.2's CRC32 instruction computes.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ofEpoch: records of the type come inside an epoch only, and it has no others.
func (t RecordType) ofEpoch() bool {
	return t >= TypePages && t <= TypeEpochEnd || t == TypeLines
}

func padLen(n int) int { return -n & 7 }
