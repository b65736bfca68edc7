// SPDX-License-Identifier: Apache-2.0

//go:build lab

package scenario

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kemari-ft/kemari/tests/check"
	"github.com/kemari-ft/kemari/tests/pair"
	"github.com/kemari-ft/kemari/tools/lab/image"
	"github.com/kemari-ft/kemari/tools/lab/lab"
	"github.com/kemari-ft/kemari/toolstack/control"
	"github.com/kemari-ft/kemari/toolstack/primary"
	"github.com/kemari-ft/kemari/xen/abi"
)

const (
	benchInterval = 200 // ms
	benchTime     = 30 * time.Second
	benchLoad     = "load mem=4,8" // MiB a second, over MiB
)

// What is promised. The gap and what is sent are those of a sync as parts of those of
// a checkpoint of Remus.
const (
	mostGap        = 0.2
	mostSent       = 0.2
	mostBySize     = 1.1 // of the pause with 512 MiB as part of that with 128 MiB
	mostActivation = time.Second
	mostMemory     = 64 << 10 // KiB of kemarid, beside half a percent of the guest's
)

// promised compares what was measured with what is promised.
func promised(t *testing.T, what string, got, most float64) {
	t.Helper()
	if got > most {
		t.Errorf("PROMISE NOT KEPT: %s is %.2f, at most %.2f was promised", what, got, most)
		return
	}
	t.Logf("promise kept: %s is %.2f, at most %.2f", what, got, most)
}

// TestBench measures what a sync costs, what the guest notices of it and how many
// pages it takes, the same for Remus, whether the size of the guest matters, and
// what passes between the cut and the guest's next tick. It fails where less comes of
// it than is promised.
//
// One CPU of a host is dom0's and the other the guests'. With one for all, whatever
// dom0 does beside the pause is in the guest's gaps, too, under Kemari as under
// Remus, and the guest runs before the hypercall that releases it has returned.
func TestBench(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 75*time.Minute)
	defer cancel()
	p, err := pair.Start(ctx, pair.Config{
		Lab:    lab.Config{MemoryMiB: 1536, Variant: image.Release, SMP: 2, XenArgs: "dom0_vcpus_pin"},
		Log:    func(s string) { t.Log(s) },
		Slowly: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)

	g := protected(ctx, t, p, pair.Spec{Name: "bench128", MemoryMiB: 128})
	loads := []string{"load idle", benchLoad}
	var kemari []measured
	for _, load := range loads {
		kemari = append(kemari, syncs(ctx, t, p, g, load))
	}
	small := kemari[len(kemari)-1]
	if _, err := p.A().Run(ctx, "kemari", "unprotect", g.Name); err != nil {
		t.Fatal(err)
	}
	var alone []seen
	for _, load := range loads {
		alone = append(alone, gaps(ctx, t, p, g, load))
		t.Logf("%s, without protection: %s", load, alone[len(alone)-1])
	}
	ended := startRemus(ctx, t, p, g)
	for i, load := range loads {
		remus := remusRun(ctx, t, p, g, load, ended)
		if remus == nil {
			break
		}
		t.Logf("%s, under xl remus -F -b -n -d -i %d: %s", load, benchInterval, remus.gaps)
		k, r := kemari[i].gaps, remus.gaps
		t.Logf("%s, each of Kemari's %d syncs and of Remus's %d checkpoints: steal time %s, %s: ratio %.2f; gaps by the guest's meter %s, %s: ratio %.2f; pages %d, %d: ratio %.2f; octets, as pages, %d: ratio %.2f",
			load, k.n, r.n,
			ms(k.stolen(alone[i])), ms(r.stolen(alone[i])), float64(k.stolen(alone[i]))/float64(r.stolen(alone[i])),
			ms(k.kept(alone[i])), ms(r.kept(alone[i])), float64(k.kept(alone[i]))/float64(r.kept(alone[i])),
			kemari[i].pages(), remus.pages, float64(kemari[i].pages())/float64(max(remus.pages, 1)),
			kemari[i].sync.Octets/abi.PageSize, kemari[i].sent()/float64(max(remus.pages, 1)))
		// The meter has to have seen the pauses, or it would not be kept in truth.
		if seen, without := k.Gaps.Count, alone[i].Gaps.Count; seen < without+uint64(k.n)*9/10 {
			t.Errorf("%s: the guest's meter saw %d gaps, there were %d syncs and %d gaps without any", load, seen, k.n, without)
		}
		promised(t, load+": the gap", float64(k.kept(alone[i]))/float64(r.kept(alone[i])), mostGap)
		promised(t, load+": what is sent", kemari[i].sent()/float64(max(remus.pages, 1)), mostSent)
	}
	destroy(ctx, t, p, g)

	g = protected(ctx, t, p, pair.Spec{Name: "bench512", MemoryMiB: 512})
	large := syncs(ctx, t, p, g, benchLoad)
	faults(ctx, t, p, g)
	calls(ctx, t, p)
	ratio := float64(large.sync.Pause) / float64(small.sync.Pause)
	t.Logf("median pause with 128 MiB %v, with 512 MiB %v: ratio %.2f", small.sync.Pause, large.sync.Pause, ratio)
	promised(t, "the pause with 512 MiB as part of that with 128 MiB", ratio, mostBySize)
	destroy(ctx, t, p, g)

	g = protected(ctx, t, p, pair.Spec{Name: "benchdisk", MemoryMiB: 128, Disk: "/dev/lun/lun0", Extra: "guest.tick_ms=100"})
	if err := g.Obey(ctx, p.A(), "load disk"); err != nil {
		t.Fatal(err)
	}
	before, err := p.Before(ctx, g)
	if err != nil {
		t.Fatal(err)
	}
	o, err := p.Failover(ctx, g, &before, len(p.Lab.LUN("lun0").Log()), nil)
	if err != nil {
		t.Fatal(err)
	}
	act := o.Activated
	t.Logf("a guest with a disk that it writes to: cut to next tick %v: detection %v, fence and activation %v, tick after %v",
		ms(o.Tick.Sub(o.Cut)), ms(o.Fence.Sub(o.Cut)), ms(o.Resumed.Sub(o.Fence)), ms(o.Tick.Sub(o.Resumed)))
	t.Logf("activation %v: last epoch %v, state %v, store %v, disks %v, watches %v, resume %v (then the toolstack, %v)",
		ms(act.Total), ms(act.Applied), ms(act.State), ms(act.Store), ms(act.Disks), ms(act.Watches), ms(act.Resume), ms(act.Toolstack))
	promised(t, "the activation, in seconds,", act.Total.Seconds(), mostActivation.Seconds())
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/1e6) }

// seen is how the guest was kept from running in benchTime.
type seen struct {
	check.GapStatus
	steal time.Duration // its kernel's steal time: it could have run, and did not
	n     int           // syncs or checkpoints
}

func (g seen) String() string {
	return fmt.Sprintf("kept from running for %.1f of %v (steal time); its gap meter: %d gaps of %.0f ms and more, %.1f ms on average, half of them less than %.1f, the worst %.1f ms",
		g.steal.Seconds(), benchTime, g.Gaps.Count, g.LeastUs/1e3, g.Gaps.TotalUs/float64(max(g.Gaps.Count, 1))/1e3, g.Gaps.P50Us/1e3, g.Gaps.MaxUs/1e3)
}

// stolen is for how long the host kept the guest from running for each sync or
// checkpoint, over what it did without.
func (g seen) stolen(alone seen) time.Duration {
	return (g.steal - alone.steal) / time.Duration(max(g.n, 1))
}

// kept is the same by the meter, whose gaps also hold what the guest's own kernel
// does for a checkpoint of Remus, frozen and suspended by its own hand.
func (g seen) kept(alone seen) time.Duration {
	return time.Duration((g.Gaps.TotalUs-alone.Gaps.TotalUs)*1e3) / time.Duration(max(g.n, 1))
}

type measured struct {
	sync primary.Sync
	gaps seen
}

// pages are all of which a sync sends something: Remus does not tell zero pages
// apart, and Xen's own ones are dirty to it.
func (m measured) pages() int {
	return int(m.sync.Pages + m.sync.Lines + m.sync.Zeros + uint64(m.sync.Always))
}

// sent is what a sync sends, in pages.
func (m measured) sent() float64 { return float64(m.sync.Octets) / abi.PageSize }

type remusSeen struct {
	gaps  seen
	pages int // the median of a checkpoint
}

// protected makes a guest of which a sync is asked every benchInterval.
func protected(ctx context.Context, t *testing.T, p *pair.Pair, s pair.Spec) *pair.Guest {
	t.Helper()
	s.Interval, s.CPUs = benchInterval, "1"
	g, err := p.Create(ctx, p.A(), s, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Protected(ctx, p.A(), s.Name); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %d MiB, a sync at least every %d ms", s.Name, s.MemoryMiB, benchInterval)
	return g
}

// syncs measures a protected guest under a load.
func syncs(ctx context.Context, t *testing.T, p *pair.Pair, g *pair.Guest, load string) measured {
	t.Helper()
	state := func() control.Guest {
		st, err := p.State(ctx, p.A(), g.Name)
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	var first control.Guest
	m := measured{gaps: gapsFrom(ctx, t, p, g, load, func() { first = state() })}
	st := state()
	var last []primary.Sync
	for _, x := range st.Last {
		if x.Epoch > first.Epoch {
			last = append(last, x)
		}
	}
	if len(last) == 0 {
		t.Fatalf("no sync: %+v", st)
	}
	m.sync, m.gaps.n = pair.Summary(last), int(st.Epoch-first.Epoch)
	t.Logf("%s: %d syncs, medians of the last %d:", load, m.gaps.n, len(last))
	x := m.sync
	t.Logf("  paused %s: trigger %s, freeze and look %s, xenstore %s, harvest %s, copy %s (of which sending %s), acknowledgement %s, release %s",
		ms(x.Pause), ms(x.Wake), ms(x.Look), ms(x.Store), ms(x.Harvest), ms(x.Copy), ms(x.Send), ms(x.Ack), ms(x.Release))
	t.Logf("  %d entries in the dirty list, %d of them hot, %d unchanged, %d pages sent, lines of %d, %d zero, %d always sent, %d octets", x.Dirty, x.Hot, x.Same, x.Pages, x.Lines, x.Zeros, x.Always, x.Octets)
	t.Logf("  kemarid while it was paused: %s", effort(x))
	t.Logf("  %d stops for reads only, %d syncs put off by xenstore", st.Reads-first.Reads, st.PutOff-first.PutOff)
	t.Logf("  as the guest sees it: %s", m.gaps)
	for _, h := range []*lab.Host{p.A(), p.B()} {
		most := float64(mostMemory + g.MemoryMiB<<10/200)
		if h == p.B() {
			most += 2 * float64(x.Octets>>10)
		}
		out, err := h.Shell(ctx, "sed -n 's/^VmHWM:[^0-9]*\\([0-9]*\\) kB$/\\1/p' /proc/$(pidof kemarid)/status")
		if err != nil {
			t.Fatal(err)
		}
		kib, err := strconv.ParseFloat(strings.TrimSpace(out), 64)
		if err != nil {
			t.Fatalf("VmHWM of kemarid on host %s: %q", h.Name, out)
		}
		promised(t, "the most memory, in MiB, that kemarid had on host "+h.Name, kib/1024, most/1024)
	}
	return m
}

// faults says how many nested page faults a dirty page costs, by Xen's trace over
// so many syncs that those at its ends do not matter.
func faults(ctx context.Context, t *testing.T, p *pair.Pair, g *pair.Guest) {
	t.Helper()
	const trace = "/run/faults.trace"
	out, err := p.A().Shell(ctx, fmt.Sprintf("date +%%s.%%N; /usr/lib/xen-4.20/bin/xentrace -D -S 256 -e %#x -T 12 %s >/dev/null 2>&1; date +%%s.%%N", pair.TraceHVMHandler, trace))
	var from, to float64
	if _, serr := fmt.Sscan(out, &from, &to); err != nil || serr != nil {
		t.Errorf("xentrace: %v: %q", err, out)
		return
	}
	st, err := p.State(ctx, p.A(), g.Name)
	if err != nil {
		t.Fatal(err)
	}
	local := filepath.Join(t.TempDir(), "trace")
	if err := p.A().Pull(ctx, trace, local); err != nil {
		t.Error(err)
		return
	}
	raw, err := os.ReadFile(local)
	if err != nil {
		t.Fatal(err)
	}
	n, err := pair.CountTrace(raw, pair.TraceNestedFault)
	if err != nil {
		t.Error(err)
		return
	}
	var dirty, hot uint32
	for _, x := range st.Last {
		if at := float64(x.At.UnixNano()) / 1e9; at > from && at < to {
			dirty += x.Dirty
			hot += x.Hot
		}
	}
	t.Logf("%d nested faults while %d entries came into dirty lists: %.2f each; without the %d that were hot %.2f each",
		n, dirty, float64(n)/float64(max(dirty, 1)), hot, float64(n)/float64(max(dirty-hot, 1)))
}

// calls counts the system calls of kemarid in the pauses of the one guest that is
// protected, by dom0's kernel.
func calls(ctx context.Context, t *testing.T, p *pair.Pair) {
	t.Helper()
	trace, err := p.A().Shell(ctx, fmt.Sprintf(pair.TraceSyscalls, 10))
	if err != nil {
		t.Error(err)
		return
	}
	s, err := pair.CountSyscalls([]byte(trace))
	if err != nil || s.Pauses == 0 {
		t.Errorf("counting the system calls of %d pauses: %v", s.Pauses, err)
		return
	}
	t.Logf("system calls of kemarid while the guest is paused: %s", s)
}

// effort is what the daemon did in a pause.
func effort(s primary.Sync) string {
	text := fmt.Sprintf("%d hypercalls, %d wake-ups", s.Hypercalls, s.Wakeups)
	if s.ReadsWrites == 0 {
		return text + "; dom0's kernel does not count reads and writes"
	}
	return fmt.Sprintf("%s, %d reads and writes", text, s.ReadsWrites)
}

// gaps asks the guest how it was kept from running for a while under a load.
func gaps(ctx context.Context, t *testing.T, p *pair.Pair, g *pair.Guest, load string) seen {
	t.Helper()
	return gapsFrom(ctx, t, p, g, load, func() {})
}

// gapsFrom calls began when the load runs and the counting begins.
func gapsFrom(ctx context.Context, t *testing.T, p *pair.Pair, g *pair.Guest, load string, began func()) seen {
	t.Helper()
	for _, cmd := range []string{load, "gaps on", "gaps reset"} {
		if err := g.Obey(ctx, p.A(), cmd); err != nil {
			t.Fatal(err)
		}
	}
	before, err := g.Status(ctx, p.A())
	if err != nil {
		t.Fatal(err)
	}
	began()
	time.Sleep(benchTime)
	s, err := g.Status(ctx, p.A())
	if err != nil {
		t.Fatal(err)
	}
	return seen{GapStatus: s.Gaps, steal: time.Duration(s.Clocks.StealNs - before.Clocks.StealNs)}
}

// startRemus begins with checkpoints that go nowhere, and answers what tells of
// their end. The first one is all of memory.
func startRemus(ctx context.Context, t *testing.T, p *pair.Pair, g *pair.Guest) <-chan string {
	t.Helper()
	call, err := p.A().Start(nil, "sh", "-c", fmt.Sprintf("exec xl -vvv remus -F -b -n -d -i %d %s localhost >/run/remus.log 2>&1", benchInterval, g.Name))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan string, 1)
	go func() {
		status, err := call.Wait(ctx, io.Discard, io.Discard)
		out, _ := p.A().Shell(ctx, "tail -n 5 /run/remus.log")
		ended <- fmt.Sprintf("status %+v, %v: %s", status, err, out)
	}()
	select {
	case text := <-ended:
		ended <- text // for whoever measures
	case <-time.After(40 * time.Second):
	}
	return ended
}

// checkpointed is what libxl-save-helper says when the pages of one are sent: as many as
// there are (xc_report_progress_step(), tools/libs/guest/xg_sr_save.c).
var checkpointed = regexp.MustCompile(`(\d+)/(\d+)\s+100%`)

// remusRun measures the guest under Remus.
func remusRun(ctx context.Context, t *testing.T, p *pair.Pair, g *pair.Guest, load string, ended <-chan string) *remusSeen {
	t.Helper()
	select {
	case text := <-ended:
		t.Errorf("xl remus ended: %s", strings.TrimSpace(text))
		return nil
	default:
	}
	checkpoints := func() (pages []int) {
		out, err := p.A().Shell(ctx, "tr '\\r' '\\n' </run/remus.log | { grep ' 100%' || true; }")
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range checkpointed.FindAllStringSubmatch(out, -1) {
			n, err := strconv.Atoi(m[2])
			if err != nil || m[1] != m[2] {
				t.Fatalf("xl remus says %q", m[0])
			}
			pages = append(pages, n)
		}
		return pages
	}
	var first int
	m := remusSeen{gaps: gapsFrom(ctx, t, p, g, load, func() { first = len(checkpoints()) })}
	all := checkpoints()
	select {
	case text := <-ended:
		t.Errorf("xl remus ended: %s", strings.TrimSpace(text))
		return nil
	default:
	}
	if m.gaps.n = len(all) - first; m.gaps.n == 0 {
		t.Errorf("xl remus made no checkpoint under %s", load)
		return nil
	}
	slices.Sort(all[first:])
	m.pages = all[first+m.gaps.n/2]
	return &m
}

func destroy(ctx context.Context, t *testing.T, p *pair.Pair, g *pair.Guest) {
	t.Helper()
	if _, err := p.A().Shell(ctx, "pkill -x xl; xl destroy "+g.Name); err != nil {
		t.Fatal(err)
	}
}
