// SPDX-License-Identifier: Apache-2.0

// Demo shows what the project is for: a guest whose host loses its power, and
// that goes on on another host as if nothing had happened. It needs nothing but
// a Debian machine and root; see tools/lab.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/kemari-ft/kemari/tests/pair"
	"github.com/kemari-ft/kemari/tools/lab/nbd"
	"github.com/kemari-ft/kemari/toolstack/control"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "\nThe demonstration failed: %v\n", err)
		os.Exit(1)
	}
}

var began = time.Now()

// step says what comes next.
func step(format string, args ...any) {
	fmt.Printf("%6.1f s  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
}

// detail is a line that belongs to the step before.
func detail(format string, args ...any) {
	fmt.Printf("            %s\n", fmt.Sprintf(format, args...))
}

const guestName = "demo"

func run(ctx context.Context) error {
	step("Power on: two Xen hosts, a and b, in QEMU, with a shared disk and a power switch between them.")
	p, err := pair.Start(ctx, pair.Config{Log: func(s string) { detail("%s", s) }})
	if err != nil {
		return err
	}
	defer p.Close()
	if err := show(ctx, p); err != nil {
		return fmt.Errorf("%w\n(logs: %s)", err, p.Lab.Dir())
	}
	return nil
}

func show(ctx context.Context, p *pair.Pair) error {
	a, b := p.A(), p.B()
	out, err := a.Shell(ctx, "xl info | grep -E '^(xen_version|xen_caps)'; kemari check")
	if err != nil {
		return err
	}
	for line := range strings.Lines(out) {
		detail("a: %s", strings.TrimSpace(line))
	}

	step("Create a PVH guest on a from an ordinary xl configuration with one more line, ft = \"kemari\".")
	mark := len(p.Lab.LUN("lun0").Log())
	spec := pair.Spec{Name: guestName, Disk: "/dev/lun/lun0", Extra: "guest.tick_ms=500"}
	g, err := p.Create(ctx, a, spec, true)
	if err != nil {
		return err
	}
	st, err := p.Protected(ctx, p.A(), guestName)
	if err != nil {
		return err
	}
	step("It is protected from its first instruction on: b holds a paused copy (generation %d).", st.Generation)
	before, err := p.Before(ctx, g)
	if err != nil {
		return err
	}
	step("The guest has booted. It ticks, and keeps a chain of hashes in its memory.")
	detail("boot id %s, %d ticks, link %d of its chain of hashes, %d records on the disk", before.BootID, before.Ticks, before.Chain.Link, before.Disk.Acked)

	meanwhile, err := load(ctx, p, g)
	if err != nil {
		return err
	}
	syncs, err := p.State(ctx, a, guestName)
	if err != nil {
		return err
	}
	step("Cut the power of host a.")
	o, err := p.Failover(ctx, g, &before, mark, meanwhile)
	if err != nil {
		return err
	}
	step("b has fenced a, and the guest goes on there:")
	detail("the same boot id, %s", o.After.BootID)
	detail("its chain of hashes is unbroken, from link %d before the cut to link %d", before.Chain.Link, o.After.Chain.Link)
	detail("its clocks neither ran backwards nor jumped")
	detail("all %d records that it was told are on the disk are there; none is torn", o.Disk.Checked)
	detail("no write of an epoch that b did not have ever reached the disk")
	detail("%d requests that died with a were executed again on b, once each", o.LUN.Pending)

	step("To xl it is an ordinary domain under its own name; shut it down.")
	if out, err = b.Run(ctx, "xl", "list"); err != nil {
		return err
	}
	for line := range strings.Lines(out) {
		detail("b: %s", strings.TrimRight(line, "\n"))
	}
	if err := p.Console(ctx, g); err != nil {
		return err
	}
	if err := p.Shutdown(ctx, g); err != nil {
		return err
	}
	return figures(o, syncs)
}

// load makes the guest write, and holds its writes at the disk; the answer ends
// that when the host is dead.
func load(ctx context.Context, p *pair.Pair, g *pair.Guest) (func(), error) {
	step("Let the guest write as fast as it can, and hold its writes at the disk, so that some are under way.")
	if err := g.Obey(ctx, p.A(), "load disk"); err != nil {
		return nil, err
	}
	if _, err := g.Tick(ctx, p.A(), g.Len(), 3); err != nil {
		return nil, err
	}
	hold := p.Lab.LUN("lun0").Add(&nbd.Rule{Match: nbd.Match{Host: "a", Ops: []nbd.Op{nbd.Write}}, Hold: true})
	wait, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := hold.Taken(wait, 2); err != nil {
		return nil, err
	}
	return func() {
		hold.Remove()
		detail("%d writes that the guest waits for are lost on the way to the disk", hold.Discard())
	}, nil
}

func figures(o pair.Outcome, st control.Guest) error {
	if o.Activated == nil {
		return errors.New("kemarid says nothing of the activation")
	}
	ms := func(d time.Duration) string { return fmt.Sprintf("%8.1f ms", float64(d)/1e6) }
	step("Figures (everything is emulated on this machine; on hardware all but the heartbeats is much faster):")
	detail("cut to b's decision %s   (heartbeats, set long since the lab shares few cores)", ms(o.Fence.Sub(o.Cut)))
	detail("activation          %s", ms(o.Activated.Total))
	detail("cut to next tick    %s", ms(o.Tick.Sub(o.Cut)))
	s := pair.Summary(st.Last)
	detail("%d syncs before, the last %d: paused %s (median), %d pages, %d octets", st.Syncs, len(st.Last), ms(s.Pause), s.Pages, s.Octets)
	return nil
}
