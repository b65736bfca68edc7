// SPDX-License-Identifier: Apache-2.0

package check

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
)

var (
	thisBoot  = BootID{1, 2, 3, 4, 5, 6, 7, 8}
	otherBoot = BootID{9}
)

func encode(boot BootID, seq uint64) ([]byte, Sum) {
	rec, sum := Encode(make([]byte, 8*SectorSize), boot, seq, int64(seq)*1000, seq*128)
	return slices.Clone(rec), sum
}

// The layout is a format; see the table in record.go.
func TestRecordDoesNotChange(t *testing.T) {
	rec, sum := encode(thisBoot, 8)
	if got := fmt.Sprintf("%d %x %016x", len(rec), rec[:56], uint64(sum)); got != goldenRecord {
		t.Errorf("record 8 is\n%s, want\n%s", got, goldenRecord)
	}
}

func TestRecordsNeitherOverlapNorLeaveHoles(t *testing.T) {
	end := int64(0)
	for seq := uint64(1); seq < 1000; seq++ {
		if Offset(seq) != end {
			t.Fatalf("record %d begins at %d, the one before ends at %d", seq, Offset(seq), end)
		}
		end += int64(Sectors(seq)) * SectorSize
	}
	for _, size := range []int64{-1, 0, GroupSize - 1, GroupSize, GroupSize + 1, 64 << 20} {
		last := Capacity(size)
		if last > 0 && Offset(last)+int64(Sectors(last))*SectorSize > size {
			t.Errorf("%d bytes: record %d has no room", size, last)
		}
	}
}

func TestJudge(t *testing.T) {
	// sector gives record 8 with one sector replaced.
	sector := func(i int, with []byte) []byte {
		rec, _ := encode(thisBoot, 8)
		copy(rec[i*SectorSize:(i+1)*SectorSize], with)
		return rec
	}
	own, _ := encode(thisBoot, 8)
	old, _ := encode(otherBoot, 8)
	later, _ := encode(thisBoot, 16)
	again, _ := Encode(make([]byte, 8*SectorSize), thisBoot, 8, 99, 99)
	flipped := bytes.Clone(own)
	flipped[3*SectorSize+200] ^= 1
	for _, c := range []struct {
		name string
		buf  []byte
		want State
	}{
		{"as written", own, Whole},
		{"blank", make([]byte, len(own)), Missing},
		{"of an earlier boot", old, Missing},
		{"short read", own[:7*SectorSize], Missing},
		{"last sector blank", sector(7, make([]byte, SectorSize)), Torn},
		{"first sector of an earlier boot", sector(0, old), Torn},
		{"one bit", flipped, Altered},
		{"sector of a later record", sector(2, later[2*SectorSize:]), Altered},
		{"sectors exchanged", sector(2, own[3*SectorSize:4*SectorSize]), Altered},
		{"sector of a second write of the number", sector(5, again[5*SectorSize:]), Altered},
		{"half a sector", sector(4, make([]byte, SectorSize/2)), Altered},
		{"strange bytes", bytes.Repeat([]byte{0xa5}, len(own)), Altered},
	} {
		if got, _ := Judge(c.buf, thisBoot, 8); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// Whatever the bytes, Judge says Whole only of what Encode can have written.
func FuzzJudge(f *testing.F) {
	for _, seq := range []uint64{1, 3, 8} {
		rec, _ := encode(thisBoot, seq)
		f.Add(rec, seq)
		f.Add(rec[:len(rec)-1], seq)
		rec[len(rec)/2] ^= 0x80
		f.Add(rec, seq)
	}
	f.Fuzz(func(t *testing.T, buf []byte, seq uint64) {
		if seq == 0 {
			return
		}
		state, sum := Judge(buf, thisBoot, seq)
		_ = state.String()
		if state != Whole {
			return
		}
		mono, link := binary.LittleEndian.Uint64(buf[40:]), binary.LittleEndian.Uint64(buf[48:])
		want, wantSum := Encode(make([]byte, 8*SectorSize), thisBoot, seq, int64(mono), link)
		if !bytes.Equal(want[:filler], buf[:filler]) || sum != wantSum && bytes.Equal(want, buf[:len(want)]) {
			t.Errorf("record %d judged whole is not what Encode writes", seq)
		}
	})
}

// goldenRecord comes from a second implementation, in another language.
const goldenRecord = "4096 4b656d52656364010800000000000000010203040506070800000000000000000008010000000000401f0000000000000004000000000000 c1f8341499b0e291"
