// SPDX-License-Identifier: Apache-2.0

package check

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

const testBoot = "01020304-0506-0708-0000-000000000000" // thisBoot

// image is a disk of 32 groups with records 1..written, and the status of a
// guest to which 1..acked and beyond were acknowledged.
func image(written, acked uint64, beyond ...uint64) ([]byte, Status) {
	img := make([]byte, 32*GroupSize)
	d := &DiskStatus{Device: "/dev/xvda", Size: int64(len(img)), Issued: written, Acked: acked + uint64(len(beyond)), AckedThrough: acked}
	for seq := uint64(1); seq <= written; seq++ {
		rec, sum := encode(thisBoot, seq)
		copy(img[Offset(seq):], rec)
		if seq <= acked {
			d.Digest.Add(seq, sum)
		}
		if slices.Contains(beyond, seq) {
			d.Beyond = append(d.Beyond, Beyond{seq, sum})
		}
	}
	return img, Status{BootID: testBoot, VCPUs: 1, Disk: d}
}

func TestDiskAllThere(t *testing.T) {
	img, s := image(100, 90, 93, 97)
	r, err := Disk(bytes.NewReader(img), s)
	if err != nil || r.Err() != nil {
		t.Fatalf("%v, %v", err, r.Err())
	}
	if r.Checked != 92 || r.LaterWhole != 8 || r.Highest != 100 {
		t.Errorf("checked %d, later %d, highest %d; want 92, 8, 100", r.Checked, r.LaterWhole, r.Highest)
	}
	// A sparse image ends where its last record does.
	if r, err := Disk(bytes.NewReader(img[:Offset(101)]), s); err != nil || r.Err() != nil {
		t.Errorf("sparse image: %v, %v", err, r.Err())
	}
}

func TestDiskBroken(t *testing.T) {
	blank := func(img []byte, from, n int64) { clear(img[from : from+n]) }
	for _, c := range []struct {
		name  string
		spoil func(img []byte, s *Status)
		want  string // of the error; empty: no error
	}{
		{"acknowledged record lost", func(img []byte, s *Status) { blank(img, Offset(42), SectorSize) }, "1 of 92 acknowledged records are missing: 42"},
		{"acknowledged record torn", func(img []byte, s *Status) { blank(img, Offset(48)+5*SectorSize, SectorSize) }, "torn: 48"},
		{"acknowledged record altered", func(img []byte, s *Status) { img[Offset(7)+100] ^= 1 }, "altered: 7"},
		{"lost beyond", func(img []byte, s *Status) { blank(img, Offset(97), SectorSize) }, "missing: 97"},
		{"another write of an acknowledged number", func(img []byte, s *Status) {
			rec, _ := Encode(make([]byte, 8*SectorSize), thisBoot, 42, 1, 1)
			copy(img[Offset(42):], rec)
		}, "not the ones whose sums"},
		{"another write beyond", func(img []byte, s *Status) {
			rec, _ := Encode(make([]byte, 8*SectorSize), thisBoot, 93, 1, 1)
			copy(img[Offset(93):], rec)
		}, "not the acknowledged ones: 93"},
		{"older image", func(img []byte, s *Status) { clear(img[Offset(80):]) }, "missing: 80 81 82 83 84 85 86 87 ..."},
		{"unacknowledged record torn", func(img []byte, s *Status) { blank(img, Offset(96)+SectorSize, SectorSize) }, ""},
	} {
		img, s := image(100, 90, 93, 97)
		c.spoil(img, &s)
		r, err := Disk(bytes.NewReader(img), s)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := r.Err(); c.want == "" && got != nil || c.want != "" && (got == nil || !strings.Contains(got.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, got, c.want)
		}
		if c.want == "" && !slices.Equal(r.LaterTorn, []uint64{96}) {
			t.Errorf("%s: reported as torn: %v", c.name, r.LaterTorn)
		}
	}
}

type failing struct{}

func (failing) ReadAt([]byte, int64) (int, error) { return 0, errors.New("I/O error") }

func TestDiskSaysWhenItCannotJudge(t *testing.T) {
	_, s := image(100, 90)
	if _, err := Disk(failing{}, s); err == nil || !strings.Contains(err.Error(), "record 1 at offset 0") {
		t.Errorf("unreadable disk: %v", err)
	}
	if _, err := Disk(failing{}, Status{BootID: testBoot}); err == nil {
		t.Error("a guest without a disk passed")
	}
	s.Disk.AckedThrough = 1 << 50
	if _, err := Disk(bytes.NewReader(nil), s); err == nil || !strings.Contains(err.Error(), "room for 256") {
		t.Errorf("more records than the disk holds: %v", err)
	}
}
