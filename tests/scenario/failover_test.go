// SPDX-License-Identifier: Apache-2.0

//go:build lab

package scenario

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/kemari-ft/kemari/tests/check"
	"github.com/kemari-ft/kemari/tests/pair"
	"github.com/kemari-ft/kemari/tools/lab/lab"
	"github.com/kemari-ft/kemari/tools/lab/nbd"
	"golang.org/x/sync/errgroup"
)

// startPair boots two hosts and, on both, a guest that has nothing to do with
// the rest.
func startPair(ctx context.Context, t *testing.T) (*pair.Pair, []*bystander) {
	t.Helper()
	p, err := pair.Start(ctx, pair.Config{
		Log: func(s string) { t.Log(s) },
		Lab: lab.Config{Files: map[string]string{"guest/small": smallKernel(ctx, t)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the hosts' consoles and kemarid's logs are in %s", p.Lab.Dir())
		}
		p.Close()
	})
	hosts := []*lab.Host{p.A(), p.B()}
	all := make([]*bystander, len(hosts))
	var both errgroup.Group
	for i, h := range hosts {
		both.Go(func() (err error) {
			all[i], err = newBystander(ctx, p, h)
			return err
		})
	}
	if err := both.Wait(); err != nil {
		t.Fatal(err)
	}
	return p, all
}

// bystander is a guest that nobody protects.
type bystander struct {
	p     *pair.Pair
	h     *lab.Host
	guest *pair.Guest
	first check.Status
}

func newBystander(ctx context.Context, p *pair.Pair, h *lab.Host) (*bystander, error) {
	b := &bystander{p: p, h: h}
	var err error
	// It lives, and leaves the processor to others.
	calm := pair.Spec{Name: "bystander", Kernel: small, MemoryMiB: smallMiB, Extra: "guest.tick_ms=4000"}
	if b.guest, err = p.Create(ctx, h, calm, false); err != nil {
		return nil, err
	}
	if b.first, err = b.guest.Status(ctx, h); err != nil {
		return nil, err
	}
	if d, err := b.guest.DomID(ctx, h); err != nil || d != "1" {
		return nil, fmt.Errorf("the first guest of host %s has domid %s, %v", h.Name, d, err)
	}
	return b, nil
}

// undisturbed: the guest ran through all of it, in the same domain.
func (b *bystander) undisturbed(ctx context.Context, t *testing.T) {
	t.Helper()
	now, err := b.guest.Status(ctx, b.h)
	if err != nil {
		t.Errorf("the bystander of host %s: %v", b.h.Name, err)
		return
	}
	if err := check.Continuity(b.first, now, pair.MaxJump); err != nil {
		t.Errorf("the bystander of host %s was disturbed: %v", b.h.Name, err)
	}
	if now.Ticks <= b.first.Ticks {
		t.Errorf("the bystander of host %s stood still at tick %d", b.h.Name, now.Ticks)
	}
	b.first = now
}

// report prints the figures of a failover.
func report(t *testing.T, o pair.Outcome) {
	t.Helper()
	act := o.Activated
	t.Logf("from the cut to the guest's next tick %s: host b noticed after %s; fence and activation, %s, end in the first instruction, and %s later a tick comes",
		ms(o.Tick.Sub(o.Cut)), ms(o.Fence.Sub(o.Cut)), ms(o.Resumed.Sub(o.Fence)), ms(o.Tick.Sub(o.Resumed)))
	t.Logf("activation %s: last epoch %s, state %s, store %s, disks %s, watches %s, resume %s",
		ms(act.Total), ms(act.Applied), ms(act.State), ms(act.Store), ms(act.Disks), ms(act.Watches), ms(act.Resume))
	t.Logf("%d ticks printed, %d of them twice; link %d of the chain, verified", o.Ticks.Ticks, o.Ticks.Rewinds, o.After.Chain.Link)
	if d := o.After.Disk; d != nil {
		t.Logf("%d records acknowledged, all on the disk; host a's writes: %d, host b's: %d, of which %d were a's before; %d requests left behind by a",
			d.Acked, o.LUN.Before, o.LUN.After, o.LUN.Repeated, o.LUN.Pending)
	}
}

// TestFailover takes a guest without a disk through the power cut of its host.
func TestFailover(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Minute)
	defer cancel()
	p, others := startPair(ctx, t)
	failover(ctx, t, p, others, pair.Spec{Name: "ft", Extra: "guest.tick_ms=500"}, nil, nil)
}

// TestFailoverDisk is the same with a disk, in the middle of its work: requests
// that were let out and are not answered when the power goes are executed again
// on the other host.
func TestFailoverDisk(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Minute)
	defer cancel()
	p, others := startPair(ctx, t)
	spec := pair.Spec{Name: "ft", Disk: "/dev/lun/lun0", Extra: "guest.tick_ms=500"}
	var held *nbd.Rule
	failover(ctx, t, p, others, spec, func(g *pair.Guest) {
		if err := g.Obey(ctx, p.A(), "load disk"); err != nil {
			t.Fatal(err)
		}
		if _, err := g.Tick(ctx, p.A(), g.Len(), 3); err != nil {
			t.Fatal(err)
		}
		held = p.Lab.LUN("lun0").Add(&nbd.Rule{Match: nbd.Match{Host: "a", Ops: []nbd.Op{nbd.Write}}, Hold: true})
		wait, cancel := context.WithTimeout(ctx, 2*time.Minute)
		defer cancel()
		if err := held.Taken(wait, 2); err != nil {
			t.Fatal(err)
		}
	}, func() {
		// They are in the fabric when the host dies. The fence must not
		// succeed before they are gone.
		held.Remove()
		t.Logf("%d writes were held at the disk when the power went", held.Discard())
	})
}

func failover(ctx context.Context, t *testing.T, p *pair.Pair, others []*bystander, spec pair.Spec, before func(*pair.Guest), meanwhile func()) {
	t.Helper()
	mark := len(p.Lab.LUN("lun0").Log())
	g, err := p.Create(ctx, p.A(), spec, true)
	if err != nil {
		t.Fatal(err)
	}
	st, err := p.Protected(ctx, p.A(), spec.Name)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("protected: generation %d, epoch %d", st.Generation, st.Epoch)
	status, err := p.Before(ctx, g)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range others {
		b.undisturbed(ctx, t)
	}
	if before != nil {
		before(g)
	}
	o, err := p.Failover(ctx, g, &status, mark, meanwhile)
	if err != nil {
		t.Fatal(err)
	}
	report(t, o)
	others[1].undisturbed(ctx, t)
	if err := p.Console(ctx, g); err != nil {
		t.Error(err)
	}
	if err := p.Shutdown(ctx, g); err != nil {
		t.Error(err)
	}
	others[1].undisturbed(ctx, t)
}
