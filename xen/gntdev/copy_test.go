// SPDX-License-Identifier: Apache-2.0

package gntdev

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/internal/sys"
)

func addr(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

func TestEncode(t *testing.T) {
	in, out := make([]byte, 512), make([]byte, 4096)
	segs := []CopySegment{
		{Ref: 8, Dom: 5, Offset: 1024, Local: in},
		{Ref: 9, Dom: 5, Local: out, ToGuest: true},
	}
	d := &Device{}
	if err := d.encode(segs); err != nil {
		t.Fatal(err)
	}
	want := []abi.GntdevCopySegment{
		{Source: 8 | 1024<<32 | 5<<48, Dest: addr(in), Len: 512, Flags: abi.GntcopySourceGref, Status: abi.GNTSTGeneralError},
		{Source: addr(out), Dest: 9 | 5<<48, Len: 4096, Flags: abi.GntcopyDestGref, Status: abi.GNTSTGeneralError},
	}
	for i := range want {
		if d.segs[i] != want[i] {
			t.Errorf("segment %d: %+v, want %+v", i, d.segs[i], want[i])
		}
	}
	if n := testing.AllocsPerRun(100, func() {
		if err := d.encode(segs); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("a batch allocates %v times", n)
	}
}

func TestSegmentsOutsideAPageAreRefused(t *testing.T) {
	d := &Device{}
	for _, s := range []CopySegment{
		{Local: nil},
		{Local: make([]byte, 4097)},
		{Local: make([]byte, 2), Offset: 4095},
		{Local: make([]byte, 1), Offset: 65535},
	} {
		if err := d.Copy([]CopySegment{{Local: make([]byte, 1)}, s}); err == nil || !strings.Contains(err.Error(), "segment 1") {
			t.Errorf("%d bytes at %d: %v", len(s.Local), s.Offset, err)
		}
	}
	if err := d.Copy(nil); err != nil {
		t.Error(err)
	}
}

func TestFailedSegmentsAreNamed(t *testing.T) {
	segs := make([]CopySegment, 12)
	d := &Device{segs: make([]abi.GntdevCopySegment, 12)}
	if err := d.decode(segs); err != nil {
		t.Fatal(err)
	}
	for i := 1; i < 12; i++ {
		segs[i] = CopySegment{Ref: abi.GrantRef(100 + i), Dom: 5}
		d.segs[i].Status = abi.GNTSTBadGntref
	}
	err := d.decode(segs)
	var e *GrantError
	if !errors.As(err, &e) || len(e.Failed) != 11 || e.Failed[0].Segment != 1 || e.Failed[0].Ref != 101 {
		t.Fatal(err)
	}
	if s := err.Error(); !strings.Contains(s, "11 of 12") || !strings.Contains(s, "d5 ref 101 GNTST_bad_gntref") || !strings.Contains(s, "3 more") {
		t.Error(s)
	}
	if segs[0].Status != 0 || segs[1].Status != int16(abi.GNTSTBadGntref) {
		t.Error("statuses were not handed back")
	}
}

func TestKernelErrors(t *testing.T) {
	fd, err := sys.Open("/dev/null") // answers ENOTTY
	if err != nil {
		t.Skip(err)
	}
	d := &Device{fd: fd}
	err = d.Copy([]CopySegment{{Ref: 1, Dom: 5, Local: make([]byte, 1)}})
	if !errors.Is(err, syscall.ENOTTY) || !strings.Contains(err.Error(), "d5") {
		t.Error(err)
	}
	_, err = d.Map(5, []abi.GrantRef{8, 9}, true)
	if !errors.Is(err, syscall.ENOTTY) || !strings.Contains(err.Error(), "[8 9] of d5") {
		t.Error(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Map(5, []abi.GrantRef{8}, true); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
	if err := d.Copy([]CopySegment{{Local: make([]byte, 1)}}); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
}

func TestCopyOut(t *testing.T) {
	m := &Mapping{mem: []byte("0123456789")}
	b := make([]byte, 3)
	if err := m.CopyOut(b, 7); err != nil || string(b) != "789" {
		t.Errorf("%q, %v", b, err)
	}
	for _, off := range []int{-1, 8, 11} {
		if m.CopyOut(b, off) == nil {
			t.Errorf("a copy at %d was done", off)
		}
	}
}
