// SPDX-License-Identifier: Apache-2.0

//go:build lab

package scenario

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kemari-ft/kemari/tests/check"
	"github.com/kemari-ft/kemari/tests/pair"
	"github.com/kemari-ft/kemari/tools/lab/image"
	"github.com/kemari-ft/kemari/tools/lab/lab"
	"github.com/kemari-ft/kemari/toolstack/primary"
)

const (
	benchInterval = 200 // ms
	benchTime     = 30 * time.Second
	benchLoad     = "load mem=4,8" // MiB a second, over MiB
)

// TestBench measures what a sync costs, what the guest notices of it, the same
// for Remus, whether the size of the guest matters, and what passes between the
// cut and the guest's next tick.
func TestBench(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 75*time.Minute)
	defer cancel()
	p, err := pair.Start(ctx, pair.Config{Lab: lab.Config{MemoryMiB: 1536, Variant: image.Release}, Log: func(s string) { t.Log(s) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)

	small, g := protectedRun(ctx, t, p, pair.Spec{Name: "bench128", MemoryMiB: 128})
	if _, err := p.A().Run(ctx, "kemari", "unprotect", g.Name); err != nil {
		t.Fatal(err)
	}
	alone := gaps(ctx, t, p, g)
	t.Logf("without protection:      %s", alone)
	remus := remusRun(ctx, t, p, g)
	if remus != nil {
		t.Logf("under xl remus -F -b -n -d -i %d: %s", benchInterval, *remus)
		t.Logf("a long gap under Kemari is %.2f of one under Remus, the worst %.2f of the worst",
			small.gaps.mean()/remus.mean(), small.gaps.max()/remus.max())
	}
	destroy(ctx, t, p, g)

	large, g := protectedRun(ctx, t, p, pair.Spec{Name: "bench512", MemoryMiB: 512, Extra: "guest.tick_ms=100"})
	ratio := float64(large.sync.Pause) / float64(small.sync.Pause)
	t.Logf("median pause with 128 MiB %v, with 512 MiB %v: ratio %.2f", small.sync.Pause, large.sync.Pause, ratio)

	before, err := g.Status(ctx, p.A())
	if err != nil {
		t.Fatal(err)
	}
	ahead, err := pair.Ahead(ctx, p.B())
	if err != nil {
		t.Fatal(err)
	}
	o, err := p.Failover(ctx, g, &before, len(p.Lab.LUN("lun0").Log()), nil)
	if err != nil {
		t.Fatal(err)
	}
	activation := o.Activated.At.Add(-ahead)
	act := o.Activated
	t.Logf("cut to next tick %v: detection %v, fence %v, activation %v, tick after %v",
		ms(o.Tick.Sub(o.Cut)), ms(o.Fence.Sub(o.Cut)), ms(activation.Sub(o.Fence)), ms(act.Total), ms(o.Tick.Sub(activation.Add(act.Total))))
	t.Logf("activation: last epoch %v, state %v, store %v, disks %v, watches %v, resume %v (then the toolstack, %v)",
		ms(act.Applied), ms(act.State), ms(act.Store), ms(act.Disks), ms(act.Watches), ms(act.Resume), ms(act.Toolstack))
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/1e6) }

// seen is how the guest was kept from running. What it was stopped for by
// others shows among the gaps in which its own kernel ran, too: that of a guest
// under Remus stops itself.
type seen check.GapStatus

// mean is that of the long gaps, us.
func (g seen) mean() float64 {
	return (g.Stopped.LongUs + g.Switched.LongUs) / float64(g.Stopped.Long+g.Switched.Long)
}

func (g seen) max() float64 { return max(g.Stopped.MaxUs, g.Switched.MaxUs) }

func (g seen) String() string {
	return fmt.Sprintf("%d gaps of 20 ms and more in %v, %.1f ms on average, the worst %.1f ms",
		g.Stopped.Long+g.Switched.Long, benchTime, g.mean()/1e3, g.max()/1e3)
}

type measured struct {
	sync primary.Sync
	gaps seen
}

// protectedRun measures a protected guest under the load.
func protectedRun(ctx context.Context, t *testing.T, p *pair.Pair, s pair.Spec) (measured, *pair.Guest) {
	t.Helper()
	s.Interval = benchInterval
	g, err := p.Create(ctx, p.A(), s, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Protected(ctx, s.Name); err != nil {
		t.Fatal(err)
	}
	for _, cmd := range []string{benchLoad, "gaps on"} {
		if err := g.Obey(ctx, p.A(), cmd); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	st, err := p.State(ctx, p.A(), s.Name)
	if err != nil {
		t.Fatal(err)
	}
	first := st.Epoch
	m := measured{gaps: gaps(ctx, t, p, g)}
	if st, err = p.State(ctx, p.A(), s.Name); err != nil {
		t.Fatal(err)
	}
	var last []primary.Sync
	for _, x := range st.Last {
		if x.Epoch > first {
			last = append(last, x)
		}
	}
	if len(last) == 0 {
		t.Fatalf("no sync in %v: %+v", time.Since(began), st)
	}
	m.sync = pair.Summary(last)
	t.Logf("%d MiB guest, %s, a sync at least every %d ms; %d syncs, medians:", s.MemoryMiB, benchLoad, benchInterval, len(last))
	x := m.sync
	t.Logf("  paused %s: trigger %s, freeze and look %s, xenstore %s, harvest %s, copy %s (of which sending %s), acknowledgement %s, release %s",
		ms(x.Pause), ms(x.Wake), ms(x.Look), ms(x.Store), ms(x.Harvest), ms(x.Copy), ms(x.Send), ms(x.Ack), ms(x.Release))
	t.Logf("  %d entries in the dirty list, %d pages sent, %d zero, %d always sent, %d octets", x.Dirty, x.Pages, x.Zeros, x.Always, x.Octets)
	t.Logf("  kemarid while it was paused: %s", effort(x))
	t.Logf("  %d stops for reads only, %d syncs put off by xenstore", st.Reads, st.PutOff)
	t.Logf("as the guest sees it:    %s", m.gaps)
	return m, g
}

// effort is what the daemon did in a pause.
func effort(s primary.Sync) string {
	text := fmt.Sprintf("%d hypercalls, %d wake-ups", s.Hypercalls, s.Wakeups)
	if s.ReadsWrites == 0 {
		return text + "; dom0's kernel does not count reads and writes"
	}
	return fmt.Sprintf("%s, %d reads and writes (system calls other than these and the hypercalls are not counted)", text, s.ReadsWrites)
}

// gaps asks the guest how it was kept from running for a while.
func gaps(ctx context.Context, t *testing.T, p *pair.Pair, g *pair.Guest) seen {
	t.Helper()
	if err := g.Obey(ctx, p.A(), "gaps reset"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(benchTime)
	s, err := g.Status(ctx, p.A())
	if err != nil {
		t.Fatal(err)
	}
	return seen(s.Gaps)
}

// remusRun measures the same guest under Remus, whose checkpoints go nowhere.
func remusRun(ctx context.Context, t *testing.T, p *pair.Pair, g *pair.Guest) *seen {
	t.Helper()
	call, err := p.A().Start(nil, "xl", "remus", "-F", "-b", "-n", "-d", "-i", fmt.Sprint(benchInterval), g.Name, "localhost")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan string, 1)
	go func() {
		var out, errOut bytes.Buffer
		status, err := call.Wait(ctx, &out, &errOut)
		done <- fmt.Sprintf("status %+v, %v: %s%s", status, err, out.String(), errOut.String())
	}()
	// The first checkpoint is all of memory.
	select {
	case text := <-done:
		t.Errorf("xl remus ended: %s", strings.TrimSpace(text))
		return nil
	case <-time.After(40 * time.Second):
	}
	m := gaps(ctx, t, p, g)
	select {
	case text := <-done:
		t.Errorf("xl remus ended: %s", strings.TrimSpace(text))
		return nil
	default:
	}
	return &m
}

func destroy(ctx context.Context, t *testing.T, p *pair.Pair, g *pair.Guest) {
	t.Helper()
	if _, err := p.A().Shell(ctx, "pkill -x xl; xl destroy "+g.Name); err != nil {
		t.Fatal(err)
	}
}
