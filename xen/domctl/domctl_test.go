// SPDX-License-Identifier: Apache-2.0

package domctl

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/privcmd"
)

// fakeXen answers hypercalls with one function for all and remembers them.
type fakeXen struct {
	h  *privcmd.Handle
	do func(op uint64, a [5]uint64) (int64, syscall.Errno)
}

func newFake(t *testing.T) (*fakeXen, *Client) {
	t.Helper()
	x := &fakeXen{}
	x.h = privcmd.Simulated(func(op uint64, a [5]uint64) (int64, syscall.Errno) { return x.do(op, a) })
	c, err := New(x.h)
	if err != nil {
		t.Fatal(err)
	}
	return x, c
}

func at[T any](x *fakeXen, addr uint64) *T {
	var t T
	return privcmd.StructAt[T](x.h.At(addr, int(unsafe.Sizeof(t))))
}

// onDomctl makes the fake check the envelope and hand u to f.
func onDomctl[T any](t *testing.T, x *fakeXen, cmd uint32, f func(u *T) syscall.Errno) {
	x.do = func(op uint64, a [5]uint64) (int64, syscall.Errno) {
		d := at[abi.Domctl](x, a[0])
		if op != abi.HypervisorDomctl || d.Cmd != cmd || d.Domain != 5 || d.InterfaceVersion != abi.DomctlInterfaceVersion {
			t.Errorf("hypercall %d, domctl %d of %s, version %#x; want %d", op, d.Cmd, d.Domain, d.InterfaceVersion, cmd)
		}
		if errno := f(at[T](x, a[0]+16)); errno != 0 {
			return -1, errno
		}
		return 0, 0
	}
}

func TestSimpleDomctls(t *testing.T) {
	x, c := newFake(t)
	ok := func(*none) syscall.Errno { return 0 }
	for cmd, f := range map[uint32]func(abi.DomID) error{
		abi.DomctlPauseDomain: c.Pause, abi.DomctlUnpauseDomain: c.Unpause, abi.DomctlDestroyDomain: c.Destroy,
		abi.DomctlShadowOp: c.DisableLogDirty,
	} {
		onDomctl(t, x, cmd, ok)
		if err := f(5); err != nil {
			t.Error(err)
		}
	}
	onDomctl(t, x, abi.DomctlShadowOp, func(u *abi.DomctlShadowOpArgs) syscall.Errno {
		if u.Op != abi.ShadowOpEnableLogDirty {
			t.Errorf("shadow op %d", u.Op)
		}
		return syscall.EBUSY
	})
	if err := c.EnableLogDirty(5); !errors.Is(err, syscall.EBUSY) {
		t.Error(err)
	}
	onDomctl(t, x, abi.DomctlSendTrigger, func(u *abi.DomctlSendTriggerArgs) syscall.Errno {
		if u.Trigger != abi.TriggerNMI || u.VCPU != 3 {
			t.Errorf("%+v", u)
		}
		return 0
	})
	if err := c.SendTrigger(5, abi.TriggerNMI, 3); err != nil {
		t.Error(err)
	}
	onDomctl(t, x, abi.DomctlGetPagingMempoolSize, func(u *abi.DomctlPagingMempool) syscall.Errno {
		u.Size = 1 << 30
		return 0
	})
	if n, err := c.PagingMempoolSize(5); n != 1<<30 || err != nil {
		t.Error(n, err)
	}
}

func TestTSCInfo(t *testing.T) {
	x, c := newFake(t)
	want := TSCInfo{Mode: abi.TSCModeDefault, GTSCkHz: 2400000, Incarnation: 2, ElapsedNsec: 99}
	onDomctl(t, x, abi.DomctlGetTSCInfo, func(u *abi.DomctlTSCInfo) syscall.Errno {
		*u = abi.DomctlTSCInfo{GTSCkHz: 2400000, Incarnation: 2, ElapsedNsec: 99}
		return 0
	})
	if got, err := c.GetTSCInfo(5); got != want || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
	onDomctl(t, x, abi.DomctlSetTSCInfo, func(u *abi.DomctlTSCInfo) syscall.Errno {
		if *u != (abi.DomctlTSCInfo{GTSCkHz: 2400000, Incarnation: 2, ElapsedNsec: 99}) {
			t.Errorf("%+v", u)
		}
		return 0
	})
	if err := c.SetTSCInfo(5, want); err != nil {
		t.Error(err)
	}
}

func TestDomainInfo(t *testing.T) {
	x, c := newFake(t)
	onDomctl(t, x, abi.DomctlGetDomainInfo, func(u *abi.DomctlDomainInfo) syscall.Errno {
		*u = abi.DomctlDomainInfo{Domain: 5, Flags: abi.DomInfHVMGuest | abi.DomInfHAP | abi.DomInfShutdown | abi.ShutdownCrash<<16,
			TotPages: 1000, MaxPages: 1001, SharedInfoFrame: 1, CPUTime: 1e9, NrOnlineVCPUs: 1, MaxVCPUID: 1,
			Handle: [16]byte{15: 7}, ArchConfig: abi.ArchDomainConfig{EmulationFlags: abi.X86EmuLAPIC}}
		return 0
	})
	i, err := c.DomainInfo(5)
	if err != nil {
		t.Fatal(err)
	}
	if i.TotalPages != 1000 || i.MaxPages != 1001 || i.SharedInfoGFN != 1 || i.CPUTime != time.Second ||
		i.NrVCPUs() != 2 || i.UUID[15] != 7 || i.EmulationFlags != 1 {
		t.Errorf("%+v", i)
	}
	if r, ok := i.ShutdownReason(); r != abi.ShutdownCrash || !ok {
		t.Errorf("shutdown reason %d %v", r, ok)
	}
	if !i.Is(abi.DomInfHAP|abi.DomInfHVMGuest) || i.Is(abi.DomInfHAP|abi.DomInfPaused) {
		t.Error("flags")
	}
	onDomctl(t, x, abi.DomctlGetDomainInfo, func(u *abi.DomctlDomainInfo) syscall.Errno {
		u.Domain = 6
		return 0
	})
	if _, err := c.DomainInfo(5); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("another domain's info was taken: %v", err)
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	x, c := newFake(t)
	for errno, text := range map[syscall.Errno]string{
		syscall.EACCES: "interface 0x17", syscall.ESRCH: "xl list", syscall.EPERM: "not privileged", syscall.EINVAL: "EINVAL",
	} {
		x.do = func(uint64, [5]uint64) (int64, syscall.Errno) { return -1, errno }
		err := c.Pause(5)
		if !errors.Is(err, errno) || !strings.Contains(err.Error(), text) || !strings.Contains(err.Error(), "pausedomain of d5") {
			t.Error(err)
		}
	}
	x.do = func(uint64, [5]uint64) (int64, syscall.Errno) { return -1, syscall.EACCES }
	if _, err := c.Physinfo(); err == nil || !strings.Contains(err.Error(), "sysctl interface 0x15") || strings.Contains(err.Error(), "of d") {
		t.Error(err)
	}
}

func TestHVMContext(t *testing.T) {
	x, c := newFake(t)
	context := []byte("an HVM context")
	onDomctl(t, x, abi.DomctlGetHVMContext, func(u *abi.DomctlHVMContext) syscall.Errno {
		if u.Buffer == 0 {
			u.Size = 100 // an upper bound
			return 0
		}
		u.Size = uint32(copy(x.h.At(u.Buffer, int(u.Size)), context))
		return 0
	})
	got, err := c.GetHVMContext(5)
	if err != nil || !bytes.Equal(got, context) {
		t.Errorf("%q, %v", got, err)
	}
	onDomctl(t, x, abi.DomctlSetHVMContext, func(u *abi.DomctlHVMContext) syscall.Errno {
		if b := x.h.At(u.Buffer, int(u.Size)); !bytes.Equal(b, context) {
			t.Errorf("loaded %q", b)
		}
		return 0
	})
	if err := c.SetHVMContext(5, context); err != nil {
		t.Error(err)
	}
	for _, n := range []int{0, maxHVMContext + 1} {
		if c.SetHVMContext(5, make([]byte, n)) == nil {
			t.Errorf("a context of %d bytes was accepted", n)
		}
	}
	onDomctl(t, x, abi.DomctlGetHVMContext, func(u *abi.DomctlHVMContext) syscall.Errno {
		u.Size = 100 + u.Size*1000
		return 0
	})
	if _, err := c.GetHVMContext(5); err == nil {
		t.Error("a context larger than its buffer was accepted")
	}
}

func TestHVMParams(t *testing.T) {
	x, c := newFake(t)
	x.do = func(op uint64, a [5]uint64) (int64, syscall.Errno) {
		p := at[abi.HVMParam](x, a[1])
		if op != abi.HypervisorHVMOp || p.DomID != 5 || p.Index != abi.HVMParamStorePFN {
			t.Errorf("hypercall %d param %+v", op, p)
		}
		p.Value = 0xfeffd
		return 0, 0
	}
	if v, err := c.GetHVMParam(5, abi.HVMParamStorePFN); v != 0xfeffd || err != nil {
		t.Error(v, err)
	}
}

func TestDirtyBitmap(t *testing.T) {
	x, c := newFake(t)
	onDomctl(t, x, abi.DomctlShadowOp, func(u *abi.DomctlShadowOpArgs) syscall.Errno {
		if u.Op != abi.ShadowOpClean || u.Pages != 20 {
			t.Errorf("%+v", u)
		}
		copy(x.h.At(u.DirtyBitmap, 8), []byte{1, 2, 4, 8})
		u.FaultCount, u.DirtyCount = 3, 4
		return 0
	})
	b, st, err := c.DirtyBitmap(5, 20, true)
	if err != nil || !bytes.Equal(b, []byte{1, 2, 4}) || st != (ShadowStats{3, 4}) {
		t.Errorf("%v %+v %v", b, st, err)
	}
	if _, _, err := c.DirtyBitmap(5, 0, false); err == nil {
		t.Error("an empty bitmap was accepted")
	}
}

func TestHost(t *testing.T) {
	x, c := newFake(t)
	x.do = func(op uint64, a [5]uint64) (int64, syscall.Errno) {
		switch op {
		case abi.HypervisorSysctl:
			s := at[abi.Sysctl](x, a[0])
			if s.Cmd != abi.SysctlPhysinfo || s.InterfaceVersion != abi.SysctlInterfaceVersion {
				t.Errorf("%+v", s)
			}
			*at[abi.SysctlPhysinfoArgs](x, a[0]+8) = abi.SysctlPhysinfoArgs{CPUkHz: 2400000, FreePages: 5, TotalPages: 6, NrCPUs: 2, Capabilities: abi.PhysCapHAP}
		case abi.HypervisorXenVersion:
			switch a[0] {
			case abi.XenverVersion:
				return 4<<16 | 20, 0
			case abi.XenverExtraversion:
				copy(x.h.At(a[1], 16), ".3-pre")
			case abi.XenverCapabilities:
				copy(x.h.At(a[1], 1024), "hvm-3.0-x86_64")
			case abi.XenverGetFeatures:
				f := at[abi.XenFeatureInfo](x, a[1])
				f.Submap = 1 << f.SubmapIdx
			}
		case abi.HypervisorSchedOp:
			if r := *at[abi.SchedRemoteShutdown](x, a[1]); a[0] != abi.SchedOpRemoteShutdown || r != (abi.SchedRemoteShutdown{DomainID: 5, Reason: abi.ShutdownReboot}) {
				t.Errorf("%d %+v", a[0], r)
			}
		}
		return 0, 0
	}
	p, err := c.Physinfo()
	if err != nil || p.CPUkHz != 2400000 || p.FreePages != 5 || p.TotalPages != 6 || p.CPUs != 2 || p.Capabilities != abi.PhysCapHAP {
		t.Errorf("%+v, %v", p, err)
	}
	v, err := c.Version()
	if err != nil || fmt.Sprint(v) != "4.20.3-pre" {
		t.Errorf("%v, %v", v, err)
	}
	if s, err := c.Capabilities(); s != "hvm-3.0-x86_64" || err != nil {
		t.Error(s, err)
	}
	if f, err := c.Features(1); f != 2 || err != nil {
		t.Error(f, err)
	}
	if err := c.RemoteShutdown(5, abi.ShutdownReboot); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
