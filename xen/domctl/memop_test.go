// SPDX-License-Identifier: Apache-2.0

package domctl

import (
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/privcmd"
)

func gfnRange(n int) []abi.GFN {
	g := make([]abi.GFN, n)
	for i := range g {
		g[i] = abi.GFN(i)
	}
	return g
}

func TestReservationsAreBatched(t *testing.T) {
	x, c := newFake(t)
	var got []abi.GFN
	x.do = func(op uint64, a [5]uint64) (int64, syscall.Errno) {
		r := at[abi.MemoryReservation](x, a[1])
		if op != abi.HypervisorMemoryOp || a[0] != abi.MemPopulatePhysmap || r.DomID != 5 || r.ExtentOrder != 0 || r.MemFlags != 0 {
			t.Errorf("hypercall %d %d %+v", op, a[0], r)
		}
		got = append(got, privcmd.Slice[abi.GFN](x.h.At(r.ExtentStart, int(r.NrExtents)*8), int(r.NrExtents))...)
		return int64(r.NrExtents), 0
	}
	want := gfnRange(gfnBatch + 5)
	if err := c.PopulatePhysmap(5, want); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d gfns reached Xen", len(got))
	}
	if err := c.PopulatePhysmap(5, nil); err != nil {
		t.Error(err)
	}
}

func TestPartialReservation(t *testing.T) {
	x, c := newFake(t)
	x.do = func(op uint64, a [5]uint64) (int64, syscall.Errno) {
		n := int64(at[abi.MemoryReservation](x, a[1]).NrExtents)
		if n < gfnBatch {
			n -= 7 // the second batch stops early
		}
		return n, 0
	}
	err := c.DecreaseReservation(5, gfnRange(gfnBatch+10))
	var p *PartialError
	if !errors.As(err, &p) || p.Done != gfnBatch+3 || p.Total != gfnBatch+10 || p.Next != gfnBatch+3 {
		t.Errorf("%v", err)
	}
	x.do = func(uint64, [5]uint64) (int64, syscall.Errno) { return 1 << 30, 0 }
	if err := c.DecreaseReservation(5, gfnRange(1)); err == nil {
		t.Error("more pages than asked for were accepted")
	}
}

func TestPhysmap(t *testing.T) {
	x, c := newFake(t)
	x.do = func(op uint64, a [5]uint64) (int64, syscall.Errno) {
		switch a[0] {
		case abi.MemAddToPhysmap:
			if p := *at[abi.AddToPhysmap](x, a[1]); p != (abi.AddToPhysmap{DomID: 5, Space: 1, Idx: 2, GPFN: 3}) {
				t.Errorf("%+v", p)
			}
		case abi.MemRemoveFromPhysmap:
			if p := *at[abi.RemoveFromPhysmap](x, a[1]); p != (abi.RemoveFromPhysmap{DomID: 5, GPFN: 4}) {
				t.Errorf("%+v", p)
			}
		case abi.MemMaximumGPFN:
			return 0xfffff, 0
		}
		return 0, 0
	}
	if err := c.AddToPhysmap(5, abi.MapSpaceGrantTable, 2, 3); err != nil {
		t.Error(err)
	}
	if err := c.RemoveFromPhysmap(5, 4); err != nil {
		t.Error(err)
	}
	if g, err := c.MaximumGPFN(5); g != 0xfffff || err != nil {
		t.Error(g, err)
	}
	x.do = func(uint64, [5]uint64) (int64, syscall.Errno) { return -1 << 31, 0 }
	if _, err := c.MaximumGPFN(5); err == nil {
		t.Error("a truncated gfn was accepted")
	}
}

func TestGrantTable(t *testing.T) {
	x, c := newFake(t)
	status := abi.GNTSTOkay
	x.do = func(op uint64, a [5]uint64) (int64, syscall.Errno) {
		if op != abi.HypervisorGrantTableOp || a[2] != 1 {
			t.Errorf("hypercall %d %v", op, a)
		}
		switch a[0] {
		case abi.GnttabOpQuerySize:
			q := at[abi.GnttabQuerySize](x, a[1])
			q.NrFrames, q.MaxNrFrames, q.Status = 4, 64, status
		case abi.GnttabOpSetupTable:
			s := at[abi.GnttabSetupTable](x, a[1])
			s.Status = status
			copy(privcmd.Slice[abi.GFN](x.h.At(s.FrameList, 16), 2), []abi.GFN{0x10, abi.InvalidGFN})
		}
		return 0, 0
	}
	nr, max, err := c.GrantTableSize(5)
	if nr != 4 || max != 64 || err != nil {
		t.Error(nr, max, err)
	}
	g, err := c.GrantTableFrames(5, 2)
	if err != nil || !slices.Equal(g, []abi.GFN{0x10, abi.InvalidGFN}) {
		t.Error(g, err)
	}
	status = abi.GNTSTPermissionDenied
	_, err = c.GrantTableFrames(5, 2)
	_, _, err2 := c.GrantTableSize(5)
	var e *GrantTableError
	for _, err := range []error{err, err2} {
		if !errors.As(err, &e) || e.Status != status || !strings.Contains(err.Error(), "GNTST_permission_denied") {
			t.Error(err)
		}
	}
	if _, err := c.GrantTableFrames(5, 0); err == nil {
		t.Error("no frames were asked for")
	}
}

func TestEvtchns(t *testing.T) {
	x, c := newFake(t)
	for _, tc := range []struct {
		raw  abi.EvtchnStatus
		want EvtchnStatus
	}{
		{abi.EvtchnStatus{Status: 1, U: [2]uint32{0xffff0000, 9}}, EvtchnStatus{Status: 1}},
		{abi.EvtchnStatus{Status: 2, VCPU: 1, U: [2]uint32{7, 9}}, EvtchnStatus{Status: 2, VCPU: 1, RemoteDom: 7, RemotePort: 9}},
		{abi.EvtchnStatus{Status: 4, U: [2]uint32{3, 9}}, EvtchnStatus{Status: 4, VIRQ: 3}},
		{abi.EvtchnStatus{Status: 5, U: [2]uint32{3, 9}}, EvtchnStatus{Status: 5}},
	} {
		x.do = func(op uint64, a [5]uint64) (int64, syscall.Errno) {
			s := at[abi.EvtchnStatus](x, a[1])
			if op != abi.HypervisorEventChannelOp || a[0] != abi.EvtchnOpStatus || s.Dom != 5 || s.Port != 8 {
				t.Errorf("hypercall %d %+v", op, s)
			}
			*s = tc.raw
			return 0, 0
		}
		if got, err := c.EvtchnStatus(5, 8); got != tc.want || err != nil {
			t.Errorf("%+v, %v", got, err)
		}
	}
	x.do = func(op uint64, a [5]uint64) (int64, syscall.Errno) {
		s := at[abi.EvtchnAllocUnbound](x, a[1])
		if a[0] != abi.EvtchnOpAllocUnbound || s.Dom != 5 || s.RemoteDom != 7 {
			t.Errorf("%+v", s)
		}
		s.Port = 12
		return 0, 0
	}
	if p, err := c.AllocUnbound(5, 7); p != 12 || err != nil {
		t.Error(p, err)
	}
}
