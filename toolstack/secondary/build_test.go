// SPDX-License-Identifier: Apache-2.0

package secondary

import (
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/kemari-ft/kemari/toolstack/link"
	"github.com/kemari-ft/kemari/toolstack/replica"
	"github.com/kemari-ft/kemari/toolstack/secondary/hosttest"
	"github.com/kemari-ft/kemari/toolstack/shell"
	"github.com/kemari-ft/kemari/toolstack/shell/xlstream"
	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/hvmctx"
	"github.com/kemari-ft/kemari/xen/kemariop"
)

// describe is what a primary says of the guest of webConfig.
func describe(t *testing.T, dom abi.DomID, tsc xlstream.TSCInfo) *stream.Shell {
	t.Helper()
	raw, err := webConfig(t).Active()
	if err != nil {
		t.Fatal(err)
	}
	d := shell.Description{
		Config: raw, DomID: dom, XenMajor: 4, XenMinor: 20, TSC: tsc,
		RAM:        []xlstream.Range{{First: 0, Count: 0x8000 - 8}, {First: 0xfeff8, Count: 8}},
		Params:     []xlstream.HVMParam{{Index: xlstream.ParamStorePFN, Value: 0xfeffc}, {Index: xlstream.ParamConsolePFN, Value: 0xfeffb}},
		HVMContext: hvmctx.Build(hvmctx.HeaderRecord(hvmctx.Header{GTSCkHz: 2_400_000})),
	}
	blob, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return &stream.Shell{VCPUs: 2, EpochPages: 1024, MemoryPages: 0x8000, MaxGFN: 1 << 20, JSON: blob}
}

// badDisks cannot be served here.
type badDisks struct{ noDisks }

func (badDisks) Check([]xlstream.Disk) error { return errors.New("disk xvda: it is not here") }

// refusal has a receiver build a shell, and returns what the primary is told of that.
func refusal(t *testing.T, r *Receiver, s *stream.Shell) []string {
	t.Helper()
	here, there := net.Pipe()
	defer there.Close()
	r.shell, r.guest, r.conn = nil, nil, link.New(here)
	said := make(chan any, 1)
	go func() {
		msg, err := stream.NewReader(there, stream.Secondary, stream.Limits{}, nil).Next()
		if err != nil {
			msg = err
		}
		said <- msg
		there.Close()
	}()
	if err := r.act(replica.BuildShell{Shell: s}); err != nil {
		t.Fatal(err)
	}
	defer r.helpers.Wait()
	select {
	case msg := <-said:
		if m, ok := msg.(*stream.Refuse); ok {
			return m.Reasons
		}
		t.Fatalf("the primary is told %v", msg)
	case <-time.After(10 * time.Second):
		t.Fatal("the primary is told nothing")
	}
	return nil
}

// TestEveryReasonBeforeTheShell: what keeps a shell from being made is found out
// before xl is asked to make one, and said at once, a reason in each string: what
// ends a line cannot be sent in one.
func TestEveryReasonBeforeTheShell(t *testing.T) {
	d := hosttest.New(t, uuid.New(), "web", false, kemariop.RoleNone)
	d.Host.Identity.TSCkHz = 3_000_000
	d.FreePages = 0x4000
	r := holding(t, d, uuid.MustParse(webConfig(t).UUID()))
	r.cfg.Disks, r.domid = badDisks{}, hosttest.DomID
	got := refusal(t, r, describe(t, hosttest.DomID, xlstream.TSCInfo{Mode: abi.TSCModeNeverEmulate}))
	want := []string{
		"disk xvda: it is not here",
		"tsc_mode=native",
		"domain id 4242 is in use on this host",
		"the name web is in use on this host, by domain 4242",
		"the guest has 128 MiB, and 64 MiB are free on this host",
	}
	if !slices.EqualFunc(got, want, strings.HasPrefix) {
		t.Errorf("the reasons are %q, want %q", got, want)
	}
	if d.Told("restore") {
		t.Error("xl was asked to make a shell")
	}
}

// TestMemoryIsXLsToFind: dom0 may have memory that xl can take, so that xl is asked;
// and if it finds too little, what is missing is said with its own words.
func TestMemoryIsXLsToFind(t *testing.T) {
	for _, tc := range []struct {
		free    uint64
		reasons int
	}{{0x4000, 2}, {0x8000, 1}} {
		d := hosttest.New(t, uuid.New(), "db", false, kemariop.RoleNone)
		d.FreePages = tc.free
		r := holding(t, d, uuid.MustParse(webConfig(t).UUID()))
		const dom = hosttest.DomID + 1
		r.cfg.Disks, r.domid = anyDisks{}, dom
		got := refusal(t, r, describe(t, dom, xlstream.TSCInfo{KHz: 2_400_000}))
		if !d.Told("restore") {
			t.Error("xl was not asked")
		}
		if len(got) != tc.reasons || !strings.Contains(got[0], "failed to free memory") ||
			tc.reasons == 2 && got[1] != "the guest has 128 MiB, and 64 MiB are free on this host" {
			t.Errorf("with %d pages free the reasons are %q", tc.free, got)
		}
	}
}

// anyDisks can be served here.
type anyDisks struct{ noDisks }

func (anyDisks) Check([]xlstream.Disk) error { return nil }
