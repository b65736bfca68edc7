// SPDX-License-Identifier: Apache-2.0

package kemariop

import (
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/privcmd"
)

// fakeXen answers kemari operations.
type fakeXen struct {
	t     *testing.T
	h     *privcmd.Handle
	do    func(op *domctlKemariOp, u []byte) syscall.Errno
	calls int
}

func newFake(t *testing.T, do func(op *domctlKemariOp, u []byte) syscall.Errno) (*fakeXen, *Client) {
	t.Helper()
	x := &fakeXen{t: t, do: do}
	x.h = privcmd.Simulated(x.call)
	c, err := New(x.h, 5)
	if err != nil {
		t.Fatal(err)
	}
	return x, c
}

func (x *fakeXen) call(op uint64, a [5]uint64) (int64, syscall.Errno) {
	x.calls++
	b := x.h.At(a[0], 144)
	if op != abi.HypervisorDomctl || b == nil {
		x.t.Errorf("hypercall %d with %#x", op, a)
		return -1, syscall.EFAULT
	}
	d := privcmd.StructAt[abi.Domctl](b)
	if d.Cmd != DomctlKemariOp || d.InterfaceVersion != abi.DomctlInterfaceVersion || d.Domain != 5 {
		x.t.Errorf("domctl %d version %#x of %s", d.Cmd, d.InterfaceVersion, d.Domain)
	}
	if errno := x.do(privcmd.StructAt[domctlKemariOp](b[16:]), b[24:]); errno != 0 {
		return -1, errno
	}
	return 0, 0
}

func TestEnableAndStatus(t *testing.T) {
	want := Status{Version: 1, Role: RolePrimary, State: StateFrozen | StateHeld, Port: 4000, NrFrames: 12, DirtyMax: 512, DirtyMark: 256}
	answer := func(u []byte) {
		*privcmd.StructAt[statusArgs](u) = statusArgs{Version: 1, Role: RolePrimary, State: want.State,
			Port: 4000, NrFrames: 12, DirtyMax: 512, DirtyMark: 256}
	}
	_, c := newFake(t, func(op *domctlKemariOp, u []byte) syscall.Errno {
		switch op.Op {
		case opEnable:
			if in := *privcmd.StructAt[enableArgs](u); in != (enableArgs{Version: 1, Role: RolePrimary, DirtyMax: 512, DirtyMark: 256}) {
				t.Errorf("enable %+v", in)
			}
		case opStatus:
		default:
			t.Errorf("op %d", op.Op)
		}
		answer(u)
		return 0
	})
	got, err := c.Enable(EnableParams{Role: RolePrimary, DirtyMax: 512, DirtyMark: 256})
	if err != nil || got != want {
		t.Errorf("enable: %+v, %v", got, err)
	}
	got, err = c.Status()
	if err != nil || got != want || !got.Is(StateFrozen) || got.Is(StateSet) {
		t.Errorf("status: %+v, %v", got, err)
	}
}

func TestSyncAndRelease(t *testing.T) {
	want := SyncResult{Epoch: 9, DirtyHalf: 1, DirtyNr: 77, Flags: SyncLost, AlwaysNr: 3, StateLen: 4096}
	var ops []uint32
	_, c := newFake(t, func(op *domctlKemariOp, u []byte) syscall.Errno {
		ops = append(ops, op.Op, op.Flags)
		switch op.Op {
		case opSync:
			*privcmd.StructAt[SyncResult](u) = want
		case opRelease:
			if e := privcmd.StructAt[releaseArgs](u).Epoch; e != 9 {
				t.Errorf("release of epoch %d", e)
			}
		case opTap:
			if a := *privcmd.StructAt[tapArgs](u); a.Port != 8 || a.Mode != TapPass {
				t.Errorf("tap %+v", a)
			}
		case opDeliver:
			if a := *privcmd.StructAt[tapArgs](u); a.Port != 7 {
				t.Errorf("deliver %+v", a)
			}
		}
		return 0
	})
	if r, err := c.Sync(false); err != nil || r != (SyncResult{}) {
		t.Errorf("sync without harvest: %+v, %v", r, err)
	}
	if r, err := c.Sync(true); err != nil || r != want {
		t.Errorf("sync: %+v, %v", r, err)
	}
	for _, f := range []func() error{
		func() error { return c.Release(9, ReleaseOut|ReleaseUnpause) },
		func() error { return c.Tap(8, TapPass) },
		func() error { return c.Deliver(7) },
		c.Resume,
		c.Disable,
	} {
		if err := f(); err != nil {
			t.Error(err)
		}
	}
	wantOps := []uint32{3, 0, 3, 1, 4, 3, 2, 0, 5, 0, 7, 0, 1, 0}
	if len(ops) != len(wantOps) {
		t.Fatalf("operations %v", ops)
	}
	for i := range ops {
		if ops[i] != wantOps[i] {
			t.Fatalf("operations %v, want %v", ops, wantOps)
		}
	}
}

func TestSetStatePassesTheRecords(t *testing.T) {
	recs := (&State{Domain: DomainRec{Version: 1, EvtchnABI: EvtchnFIFO}}).Encode()
	var x *fakeXen
	x, c := newFake(t, func(op *domctlKemariOp, u []byte) syscall.Errno {
		a := privcmd.StructAt[stateArgs](u)
		if got := x.h.At(a.Buffer, int(a.Size)); string(got) != string(recs) {
			t.Errorf("records %x", got)
		}
		return 0
	})
	if err := c.SetState(recs); err != nil {
		t.Error(err)
	}
	if err := c.SetState(make([]byte, StateMax+1)); err == nil || x.calls != 1 {
		t.Errorf("too many records: %v, %d calls", err, x.calls)
	}
}

func TestNamesPages(t *testing.T) {
	for _, tc := range []struct {
		op   uint32
		name func(*Client, []abi.GFN) error
		most int
	}{
		{opHot, (*Client).Hot, HotMax},
		{opWarm, (*Client).Warm, WarmMax},
	} {
		var x *fakeXen
		var got []uint64
		x, c := newFake(t, func(op *domctlKemariOp, u []byte) syscall.Errno {
			a := privcmd.StructAt[gfnArgs](u)
			got = nil
			if a.Nr > 0 {
				got = slices.Clone(privcmd.Slice[uint64](x.h.At(a.GFNs, int(a.Nr)*8), int(a.Nr)))
			} else if a.GFNs != 0 {
				t.Errorf("no page at %#x", a.GFNs)
			}
			if op.Op != tc.op {
				t.Errorf("operation %d, want %d", op.Op, tc.op)
			}
			return 0
		})
		if err := tc.name(c, []abi.GFN{3, 7, 1 << 40}); err != nil || !slices.Equal(got, []uint64{3, 7, 1 << 40}) {
			t.Errorf("operation %d named %#x, %v", tc.op, got, err)
		}
		if err := tc.name(c, nil); err != nil || got != nil {
			t.Errorf("operation %d named %#x instead of none, %v", tc.op, got, err)
		}
		if err := tc.name(c, make([]abi.GFN, tc.most+1)); !errors.Is(err, syscall.E2BIG) || x.calls != 2 {
			t.Errorf("operation %d with too many: %v, %d calls", tc.op, err, x.calls)
		}
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	for _, tc := range []struct {
		op    func(*Client) error
		errno syscall.Errno
		is    error
		isNot error
		text  string
	}{
		{func(c *Client) error { _, err := c.Status(); return err }, syscall.ENOSYS, ErrUnsupported, ErrVersion, "CONFIG_KEMARI"},
		{func(c *Client) error { _, err := c.Status(); return err }, syscall.EOPNOTSUPP, ErrUnsupported, ErrVersion, "CONFIG_KEMARI"},
		{func(c *Client) error { _, err := c.Status(); return err }, syscall.EINVAL, ErrUnsupported, ErrVersion, "CONFIG_KEMARI"},
		{func(c *Client) error { _, err := c.Enable(EnableParams{}); return err }, syscall.EOPNOTSUPP, syscall.EOPNOTSUPP, ErrUnsupported, "xl dmesg"},
		{func(c *Client) error { _, err := c.Enable(EnableParams{}); return err }, syscall.EACCES, ErrVersion, ErrUnsupported, "matching versions"},
		{func(c *Client) error { _, err := c.Sync(true); return err }, syscall.EAGAIN, syscall.EAGAIN, ErrUnsupported, "try again"},
		{func(c *Client) error { return c.Release(1, ReleaseOut) }, syscall.EILSEQ, syscall.EILSEQ, ErrVersion, "last sync"},
		{func(c *Client) error { return c.Resume() }, syscall.EACCES, syscall.EACCES, ErrVersion, "0x17"},
		{func(c *Client) error { return c.Disable() }, syscall.ESRCH, syscall.ESRCH, ErrVersion, "no such domain"},
	} {
		_, c := newFake(t, func(*domctlKemariOp, []byte) syscall.Errno { return tc.errno })
		err := tc.op(c)
		if !errors.Is(err, tc.is) || !errors.Is(err, tc.errno) || errors.Is(err, tc.isNot) {
			t.Errorf("%v: matches the wrong errors", err)
		}
		if s := err.Error(); !strings.Contains(s, tc.text) || !strings.Contains(s, "d5") {
			t.Errorf("%q lacks %q or the domain", s, tc.text)
		}
	}
}

func TestStatusOfAnotherVersion(t *testing.T) {
	_, c := newFake(t, func(_ *domctlKemariOp, u []byte) syscall.Errno {
		privcmd.StructAt[statusArgs](u).Version = 2
		return 0
	})
	s, err := c.Status()
	if !errors.Is(err, ErrVersion) || s.Version != 2 || !strings.Contains(err.Error(), "interface 2") {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestPausePathDoesNotAllocate(t *testing.T) {
	_, c := newFake(t, func(*domctlKemariOp, []byte) syscall.Errno { return 0 })
	if n := testing.AllocsPerRun(100, func() {
		if _, err := c.Sync(true); err != nil {
			t.Fatal(err)
		}
		if err := c.Release(1, ReleaseOut|ReleaseUnpause); err != nil {
			t.Fatal(err)
		}
		if err := c.Deliver(3); err != nil {
			t.Fatal(err)
		}
		if err := c.Tap(3, TapHold); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("the pause path allocates %v times", n)
	}
}
