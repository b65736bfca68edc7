// SPDX-License-Identifier: Apache-2.0

package secondary

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/go-hclog"
	"github.com/kemari-ft/kemari/toolstack/config"
	"github.com/kemari-ft/kemari/toolstack/guestmem"
	"github.com/kemari-ft/kemari/toolstack/lease"
	"github.com/kemari-ft/kemari/toolstack/link"
	"github.com/kemari-ft/kemari/toolstack/replica"
	"github.com/kemari-ft/kemari/toolstack/secondary/hosttest"
	"github.com/kemari-ft/kemari/toolstack/shell/xlstream"
	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/xen/foreignmem"
	"github.com/kemari-ft/kemari/xen/kemariop"
)

// TestFailoverSaysWhyNot: an operator who asks for what cannot be is told so.
func TestFailoverSaysWhyNot(t *testing.T) {
	guest := uuid.New()
	d := hosttest.New(t, guest, "web--kemari", true, kemariop.RoleSecondary)
	d.Host.Config = config.Default()
	for _, peerIsOff := range []bool{false, true} {
		r := New(Config{Host: d.Host, Guest: guest, Record: lease.Record{Guest: guest, Role: lease.Secondary, Generation: 3, Phase: lease.Protecting}})
		select {
		case why := <-r.Failover(peerIsOff):
			if why == "" {
				t.Error("no reason is given")
			}
			t.Log(why)
		case <-time.After(5 * time.Second):
			t.Errorf("peer is off: %v: no answer", peerIsOff)
		}
		r.Stop()
	}
}

// holding is a receiver that holds a copy of a guest, in its shell on d.
func holding(t *testing.T, d *hosttest.Domain, guest uuid.UUID) *Receiver {
	t.Helper()
	op, err := kemariop.New(d.Host.Hypercalls, hosttest.DomID)
	if err != nil {
		t.Fatal(err)
	}
	d.Host.Config = config.Default()
	pulse, err := link.NewPulse(d.Host.Timing(), nil, func(lease.Verdict) {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pulse.Stop)
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	return &Receiver{
		cfg: Config{Host: d.Host, Guest: guest}, log: hclog.NewNullLogger(), ctx: ctx, op: op, pulse: pulse,
		machine: replica.NewSecondary(guest, true, lease.Record{}),
		guest:   &xlstream.Guest{Config: webConfig(t), DomID: hosttest.DomID},
		shell:   &Shell{op: op, mem: guestmem.FromMapping(0, foreignmem.FromBytes(nil))},
		apply:   make(chan job, 2),
	}
}

// TestCopyWithoutShell: when somebody destroys the shell, what arrives is not
// acknowledged any more, and the domain's memory is let go.
func TestCopyWithoutShell(t *testing.T) {
	guest := uuid.New()
	d := hosttest.New(t, guest, "web--kemari", true, kemariop.RoleSecondary)
	r := holding(t, d, guest)
	if err := r.handle(look{}); err != nil {
		t.Fatal(err)
	}
	if r.shell == nil {
		t.Fatal("the shell is there, and was given up")
	}
	d.Destroy()
	if err := r.handle(look{}); err != nil {
		t.Fatal(err)
	}
	if r.shell != nil {
		t.Error("the shell is gone, and is held on to")
	}
	if text := r.Status().Text; !strings.Contains(text, "destroyed") {
		t.Errorf("the operator is told %q", text)
	}
}

// I7: state that could not be activated is not acknowledged.
func TestI7BadStateIsNotAcknowledged(t *testing.T) {
	guest := uuid.New()
	d := hosttest.New(t, guest, "web--kemari", true, kemariop.RoleSecondary)
	r := holding(t, d, guest)
	good := (&kemariop.State{Domain: kemariop.DomainRec{Version: kemariop.InterfaceVersion, EvtchnABI: kemariop.EvtchnFIFO}}).Encode()
	for _, e := range []*stream.Epoch{
		{Generation: 1, Number: 2, State: []byte("garbage")},
		{Generation: 1, Number: 2, State: good, Xenstore: []byte("garbage")},
	} {
		if err := r.judge(e); err == nil {
			t.Errorf("%+v is accepted", e)
		}
	}
	if err := r.judge(&stream.Epoch{Generation: 1, Number: 2, State: good}); err != nil {
		t.Errorf("an epoch of good state: %v", err)
	}
}
