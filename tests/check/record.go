// SPDX-License-Identifier: Apache-2.0

package check

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
)

// The records lie one after the other from the disk's first byte, in groups of
// seven one-sector records and one of eight sectors, and are never overwritten
// by the boot that wrote them. Record numbers begin at 1. Every sector can be
// judged alone, so that a torn record is told from a damaged one:
//
//	  0   8  magic
//	  8   8  record number, little-endian as all that follows
//	 16  16  boot id of the guest that wrote it
//	 32   1  index of this sector in the record
//	 33   1  sectors in the record
//	 34   1  kind
//	 35   5  zero
//	 40   8  CLOCK_MONOTONIC at issue, nanoseconds
//	 48   8  link number of the chain at issue
//	 56 424  filler made from boot id, number and index
//	480  32  sha256 of bytes 0 to 479
const (
	SectorSize = 512
	GroupSize  = 7*SectorSize + 8*SectorSize
	groupLen   = 8

	sumOffset = SectorSize - sha256.Size
	filler    = 56
)

var magic = [8]byte{'K', 'e', 'm', 'R', 'e', 'c', 'd', 1}

// Kind says what the guest waits for before it counts a record as acknowledged.
type Kind uint8

const (
	Direct Kind = 1 // the O_DIRECT write returned
	Synced Kind = 2 // the O_DIRECT write and an fsync after it returned
)

// BootID is /proc/sys/kernel/random/boot_id in binary.
type BootID [16]byte

// ParseBootID reads the kernel's form, 8-4-4-4-12 hexadecimal digits.
func ParseBootID(s string) (BootID, error) {
	var id BootID
	raw, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(raw) != len(id) || len(s) != 36 {
		return id, fmt.Errorf("boot id %q: not 32 hexadecimal digits in five groups", s)
	}
	copy(id[:], raw)
	return id, nil
}

// Sum is what the guest remembers of an acknowledged record: the first eight
// bytes of the sha256 over its sectors' sums.
type Sum uint64

// Sectors is the length of a record, by its number.
func Sectors(seq uint64) int {
	if seq%groupLen == 0 {
		return 8
	}
	return 1
}

// KindOf is the kind of a record, by its number.
func KindOf(seq uint64) Kind {
	if seq%3 == 0 {
		return Synced
	}
	return Direct
}

// Offset is where a record begins, in bytes from the start of the disk.
func Offset(seq uint64) int64 {
	n := seq - 1
	return int64(n/groupLen)*GroupSize + int64(n%groupLen)*SectorSize
}

// Capacity is the highest record number that a disk of size bytes holds.
func Capacity(size int64) uint64 {
	if size < 0 {
		return 0
	}
	return uint64(size/GroupSize) * groupLen
}

// Encode writes record seq into buf, which it fills in whole sectors from the
// start, and returns the part used and the sum to remember.
func Encode(buf []byte, boot BootID, seq uint64, mono int64, link uint64) ([]byte, Sum) {
	n := Sectors(seq)
	out := buf[:n*SectorSize]
	sums := sha256.New()
	for i := range n {
		s := out[i*SectorSize : (i+1)*SectorSize]
		copy(s, magic[:])
		binary.LittleEndian.PutUint64(s[8:], seq)
		copy(s[16:], boot[:])
		s[32], s[33], s[34] = byte(i), byte(n), byte(KindOf(seq))
		clear(s[35:40])
		binary.LittleEndian.PutUint64(s[40:], uint64(mono))
		binary.LittleEndian.PutUint64(s[48:], link)
		fill(s[filler:sumOffset], boot, seq, i)
		sum := sha256.Sum256(s[:sumOffset])
		copy(s[sumOffset:], sum[:])
		sums.Write(sum[:])
	}
	return out, foldSum(sums.Sum(nil))
}

func fill(b []byte, boot BootID, seq uint64, index int) {
	state := binary.LittleEndian.Uint64(boot[:]) ^ seq<<8 ^ uint64(index)
	for i := 0; i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], splitmix(&state))
	}
}

func foldSum(sum []byte) Sum { return Sum(binary.LittleEndian.Uint64(sum)) }

// State is what was found in a record's place.
type State int

const (
	Whole   State = iota // every sector is the record's
	Missing              // nothing of the record: blank, or left by an earlier boot
	Torn                 // some sectors are the record's, the others are older
	Altered              // a damaged sector, or a sector of another record of this boot
)

var stateNames = [...]string{"whole", "missing", "torn", "altered"}

func (s State) String() string { return stateNames[s] }

// Judge says what buf, read from the place of record seq, holds of it. The sum
// is meaningful only with Whole. A buf shorter than the record is Missing.
func Judge(buf []byte, boot BootID, seq uint64) (State, Sum) {
	n := Sectors(seq)
	if len(buf) < n*SectorSize {
		return Missing, 0
	}
	own, bad := 0, 0
	sums := sha256.New()
	for i := range n {
		s := buf[i*SectorSize : (i+1)*SectorSize]
		switch judgeSector(s, boot, seq, i) {
		case Whole:
			own++
			sums.Write(s[sumOffset:])
			// All sectors of a record carry the same times; a mix would be two
			// writes of the same number.
			if !bytes.Equal(s[40:56], buf[40:56]) {
				bad++
			}
		case Altered:
			bad++
		}
	}
	switch {
	case bad > 0:
		return Altered, 0
	case own == n:
		return Whole, foldSum(sums.Sum(nil))
	case own > 0:
		return Torn, 0
	}
	return Missing, 0
}

// judgeSector answers Whole, Missing or Altered for one sector.
func judgeSector(s []byte, boot BootID, seq uint64, index int) State {
	if !bytes.Equal(s[:8], magic[:]) {
		if allZero(s) {
			return Missing
		}
		return Altered
	}
	sum := sha256.Sum256(s[:sumOffset])
	if !bytes.Equal(sum[:], s[sumOffset:]) {
		return Altered
	}
	if !bytes.Equal(s[16:32], boot[:]) {
		return Missing
	}
	if binary.LittleEndian.Uint64(s[8:]) != seq || int(s[32]) != index ||
		int(s[33]) != Sectors(seq) || Kind(s[34]) != KindOf(seq) {
		return Altered
	}
	return Whole
}

func allZero(b []byte) bool {
	for _, v := range b {
		if v != 0 {
			return false
		}
	}
	return true
}

// Digest is a running sha256 over the sums of records 1, 2, 3 and so on. One
// digest in a status stands for every record it claims.
type Digest Hash

// Add appends the next record's sum.
func (d *Digest) Add(seq uint64, sum Sum) {
	var in [sha256.Size + 16]byte
	copy(in[:], d[:])
	binary.LittleEndian.PutUint64(in[sha256.Size:], seq)
	binary.LittleEndian.PutUint64(in[sha256.Size+8:], uint64(sum))
	*d = sha256.Sum256(in[:])
}
