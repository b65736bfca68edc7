// SPDX-License-Identifier: Apache-2.0

package secondary

import (
	"bytes"
	"syscall"
	"testing"
	"unsafe"

	"github.com/kemari-ft/kemari/toolstack/shell/xlstream"
	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/domctl"
	"github.com/kemari-ft/kemari/xen/hvmctx"
	"github.com/kemari-ft/kemari/xen/privcmd"
)

// onHost is a shell of a guest on a host whose TSC has a rate.
func onHost(t *testing.T, khz uint32) *Shell {
	t.Helper()
	var h *privcmd.Handle
	h = privcmd.Simulated(func(op uint64, a [5]uint64) (int64, syscall.Errno) {
		b := h.At(a[0], int(unsafe.Sizeof(abi.Sysctl{})))
		if op != abi.HypervisorSysctl || privcmd.StructAt[abi.Sysctl](b).Cmd != abi.SysctlPhysinfo {
			t.Errorf("hypercall %d", op)
			return -1, syscall.ENOSYS
		}
		const union = 8
		privcmd.StructAt[abi.SysctlPhysinfoArgs](b[union:]).CPUkHz = khz
		return 0, 0
	})
	ctl, err := domctl.New(h)
	if err != nil {
		t.Fatal(err)
	}
	return &Shell{ctl: ctl}
}

// I10: a guest that reads the TSC itself has no emulation that would make up for
// another rate.
func TestI10NativeTSCNeedsItsRate(t *testing.T) {
	const guest = 2_400_000 // kHz
	blob := hvmctx.Build(hvmctx.HeaderRecord(hvmctx.Header{GTSCkHz: guest}))
	for _, tc := range []struct {
		mode, khz, host uint32
		want            uint32 // what Xen is told
		refused         bool
	}{
		{abi.TSCModeNeverEmulate, 0, guest + 500, 0, false},
		{abi.TSCModeNeverEmulate, 0, 3_000_000, 0, true},
		{abi.TSCModeDefault, guest, guest + 500, guest + 500, false}, // else Xen emulates
		{abi.TSCModeDefault, guest, 3_000_000, guest, false},
		{abi.TSCModeAlwaysEmulate, guest, guest + 500, guest, false},
	} {
		g := &xlstream.Guest{HVMContext: blob, TSC: xlstream.TSCInfo{Mode: tc.mode, KHz: tc.khz}}
		if err := fitTSC(g, tc.host); (err != nil) != tc.refused || g.TSC.KHz != tc.want {
			t.Errorf("mode %d on a host with %d kHz: Xen is told %d kHz, not %d (%v)", tc.mode, tc.host, g.TSC.KHz, tc.want, err)
		}
	}
}

// I10: the guest's TSC goes on from where it stood, and as fast as before; only
// what two calibrations of one rate differ by is no difference.
func TestI10TSCGoesOn(t *testing.T) {
	const guest = 2_400_000 // kHz
	cpu := func(vcpu uint16, tsc uint64) hvmctx.Record {
		c := hvmctx.Record{Type: abi.HVMSaveCPU, Instance: vcpu, Data: make([]byte, abi.HVMCPUSize)}
		for i := range 8 {
			c.Data[abi.HVMCPUOffTSC+i] = byte(tsc >> (8 * i))
		}
		return c
	}
	blob := hvmctx.Build(hvmctx.HeaderRecord(hvmctx.Header{GTSCkHz: guest}), cpu(0, 0x1122334455667788), cpu(1, 7))
	for _, tc := range []struct{ host, want uint32 }{
		{guest, guest},
		{guest + 500, guest + 500}, // calibrated anew
		{guest - 500, guest - 500},
		{guest + 700, guest},
		{guest - 700, guest},
		{3_000_000, guest}, // another processor
		{1_200_000, guest},
	} {
		got, err := onHost(t, tc.host).localTSC(bytes.Clone(blob))
		if err != nil {
			t.Fatal(err)
		}
		ctx, err := hvmctx.Parse(got)
		if err != nil {
			t.Fatal(err)
		}
		if khz := ctx.Header().GTSCkHz; khz != tc.want {
			t.Errorf("on a host with %d kHz the guest's TSC goes on with %d kHz, not %d", tc.host, khz, tc.want)
		}
		ctx.SetGTSCkHz(guest)
		if !bytes.Equal(ctx.Bytes(), blob) {
			t.Errorf("on a host with %d kHz more than the rate changes", tc.host)
		}
	}
}
