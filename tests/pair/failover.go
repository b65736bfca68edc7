// SPDX-License-Identifier: Apache-2.0

package pair

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/kemari-ft/kemari/tests/check"
	"github.com/kemari-ft/kemari/tools/lab/lab"
	"github.com/kemari-ft/kemari/tools/lab/nbd"
	"github.com/kemari-ft/kemari/toolstack/control"
	"github.com/kemari-ft/kemari/toolstack/secondary"
)

// Outcome is a failover in figures. All times are the lab's.
type Outcome struct {
	Cut       time.Time
	Fence     time.Time // the secondary asked for the power to be cut
	Activated *secondary.Activation
	Resumed   time.Time // the guest's first instruction on b, by kemarid's word
	Tick      time.Time // its first tick there
	Before    check.Status
	After     check.Status
	Ticks     check.TickReport
	Disk      check.Report
	LUN       LUNReport

	from  int           // lines that the guest had printed before
	slack time.Duration // see clockSlack
}

// MaxJump is how far the guest's clock may have jumped across a failover. It is
// not told of the outage; what it may notice is that the shared machine kept it
// from running.
const MaxJump = 30 * time.Second

// How much longer than from asking it to now, without the time between the cut and its
// first instruction on b, a guest's clock may have run: dom0's clock is read over the
// command channel, and a guest that is handed over runs on until its last epoch.
const (
	clockSlack    = 500 * time.Millisecond
	handOverSlack = 3 * time.Second
)

// Before is what a protected guest of a says of itself, once b's copy of it says the
// same: what a guest prints is seen up to an epoch before it is committed.
func (p *Pair) Before(ctx context.Context, g *Guest) (check.Status, error) {
	s, err := g.Status(ctx, p.A())
	if err != nil {
		return s, err
	}
	a, err := p.State(ctx, p.A(), g.Name)
	if err != nil {
		return s, err
	}
	// The one after the newest that is acknowledged may have begun before.
	_, err = p.WaitState(ctx, p.B(), g.Name, fmt.Sprintf("at epoch %d", a.Epoch+2), func(b control.Guest) bool { return b.Epoch >= a.Epoch+2 })
	return s, err
}

// Failover cuts the power of a and judges what becomes of the guest on b: Cut and
// Judge.
func (p *Pair) Failover(ctx context.Context, g *Guest, before *check.Status, mark int, meanwhile func()) (Outcome, error) {
	o, err := p.Cut(ctx, g, meanwhile)
	if err != nil {
		return o, err
	}
	return p.Judge(ctx, g, before, mark, o)
}

// Cut cuts the power of a and waits until the guest runs on b; from then on a may
// be powered on again. meanwhile, if not nil, is called when a has no power any
// more.
func (p *Pair) Cut(ctx context.Context, g *Guest, meanwhile func()) (Outcome, error) {
	o := Outcome{from: g.Len(), slack: clockSlack, Cut: time.Now()}
	p.A().Cut()
	p.say("host a has lost its power")
	if meanwhile != nil {
		meanwhile()
	}
	st, err := p.WaitState(ctx, p.B(), g.Name, "running here", func(s control.Guest) bool { return s.Activation != nil })
	if err != nil {
		return o, err
	}
	o.Activated = st.Activation
	for _, f := range p.Fencings() {
		if f.By == "b" && f.Victim == "a" && f.At.After(o.Cut) && o.Fence.IsZero() {
			o.Fence = f.At
		}
	}
	if o.Fence.IsZero() {
		return o, errors.New("host b activated the guest without having fenced host a")
	}
	return o, nil
}

// HandOver lets the guest go on on b by the operator's wish, and judges what
// becomes of it there.
func (p *Pair) HandOver(ctx context.Context, g *Guest, before *check.Status, mark int) (Outcome, error) {
	o := Outcome{from: g.Len(), slack: handOverSlack, Cut: time.Now()}
	if out, err := p.A().Run(ctx, "kemari", "failover", g.Name); err != nil {
		return o, fmt.Errorf("%w\n%s\nkemarid on host a:\n%s", err, out, DaemonOutput(p.A()))
	}
	st, err := p.WaitState(ctx, p.B(), g.Name, "running here", func(s control.Guest) bool { return s.Activation != nil })
	if err != nil {
		return o, err
	}
	o.Activated = st.Activation
	return p.Judge(ctx, g, before, mark, o)
}

// Judge judges the guest that goes on on b. before is what Before has returned, or,
// without a power cut, the guest's status; nil if it could not be asked since, for example, it was still booting.
// mark is the length of the LUN's log when the guest was created.
func (p *Pair) Judge(ctx context.Context, g *Guest, before *check.Status, mark int, o Outcome) (Outcome, error) {
	b := p.B()
	ahead, err := Ahead(ctx, b)
	if err != nil {
		return o, err
	}
	o.Resumed = o.Activated.At.Add(o.Activated.Total - o.Activated.Resume - ahead)
	// A guest that is still booting begins to tick when it is done.
	first, err := g.Tick(ctx, b, o.from, 3)
	if err != nil {
		return o, fmt.Errorf("%w\nkemarid on host b:\n%s", err, DaemonOutput(b))
	}
	o.Tick = first.At
	if err := p.named(ctx, g); err != nil {
		return o, err
	}
	if o.After, err = g.Status(ctx, b); err != nil {
		return o, err
	}
	if before != nil {
		o.Before = *before
		if err := check.Continuity(*before, o.After, MaxJump); err != nil {
			return o, fmt.Errorf("the guest is not the same any more: %w", err)
		}
		// The outage is not guest time. What passes between its first instruction on
		// b and its first tick from there is: some 10 s where b's processor is shared.
		ran := time.Duration(o.After.Clocks.MonoNs - before.Clocks.MonoNs)
		out := o.Resumed.Sub(o.Cut)
		g.mu.Lock()
		asked := g.asked[before.Clocks.MonoNs]
		g.mu.Unlock()
		if most := time.Since(asked) - out + o.slack; ran > most {
			return o, fmt.Errorf("the guest's clock advanced by %v across a failover of %v (its first tick came %v later), and can have run for %v at most",
				ran, out, o.Tick.Sub(o.Resumed), most)
		}
	} else if !o.After.Chain.Verified {
		return o, fmt.Errorf("the chain is broken: %+v", o.After.Chain)
	}
	if _, err := g.Verify(ctx, b); err != nil {
		return o, err
	}
	if o.Ticks, err = g.judgeTicks(o.After); err != nil {
		return o, err
	}
	if o.After.Disk == nil {
		return o, nil
	}
	return o, p.judgeDisk(ctx, g, mark, &o)
}

// judgeDisk looks at the disk from outside.
func (p *Pair) judgeDisk(ctx context.Context, g *Guest, mark int, o *Outcome) error {
	// Not before the guest has come past everything that it ever wrote on
	// the old host: it would write to the same places again what it did in an
	// epoch that was not committed.
	lun := p.Lab.LUN("lun0")
	var most uint64
	for _, e := range lun.Log()[mark:] {
		if e.Host == "a" && e.Op == nbd.Write {
			most = max(most, e.Offset+uint64(e.Length))
		}
	}
	err := until(ctx, settle, func() (err error) {
		if o.After, err = g.Status(ctx, p.B()); err != nil {
			return err
		}
		if d := o.After.Disk; uint64(check.Offset(d.AckedThrough)) < most || d.AckedThrough == 0 {
			return fmt.Errorf("the guest has come to record %d, at %#x; on host a it wrote up to %#x", d.AckedThrough, check.Offset(d.AckedThrough), most)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if o.Disk, err = check.Disk(lun, o.After); err == nil {
		err = o.Disk.Err()
	}
	if err != nil {
		return fmt.Errorf("the disk, read from outside: %w", err)
	}
	if o.LUN, err = JudgeLUN(lun.Log()[mark:], "a", "b"); err != nil {
		return fmt.Errorf("the log of the shared disk: %w", err)
	}
	return nil
}

func (g *Guest) judgeTicks(s check.Status) (check.TickReport, error) {
	var ticks []check.Tick
	var bad []string
	for _, l := range g.Lines(0) {
		if t, ok := check.ParseTick(l.Text); ok {
			ticks = append(ticks, t)
		}
		if strings.HasPrefix(l.Text, "error ") || strings.Contains(l.Text, "Oops") || strings.Contains(l.Text, "BUG:") ||
			strings.Contains(l.Text, "Call Trace") || strings.Contains(l.Text, "Kernel panic") {
			bad = append(bad, l.Host+": "+l.Text)
		}
	}
	if len(bad) > 0 {
		return check.TickReport{}, fmt.Errorf("the guest complains:\n%s", strings.Join(bad[:min(len(bad), 10)], "\n"))
	}
	return check.Ticks(s.BootID, s.Chain.Slots, ticks)
}

// named looks for the guest in xl list: under its own name, running, and
// without a shell beside it.
func (p *Pair) named(ctx context.Context, g *Guest) error {
	// xl gives the name back after the guest has begun to run.
	return until(ctx, time.Minute, func() error {
		out, err := p.B().Run(ctx, "xl", "list")
		if err != nil {
			return err
		}
		n := 0
		for line := range strings.Lines(out) {
			switch f := strings.Fields(line); {
			case len(f) < 6 || !strings.HasPrefix(f[0], g.Name):
			case f[0] == g.Name && !strings.Contains(f[4], "p"):
				n++
			default:
				return fmt.Errorf("xl list on host b shows: %s", line)
			}
		}
		if n != 1 {
			return fmt.Errorf("xl list on host b shows the guest %d times:\n%s", n, out)
		}
		return nil
	})
}

// Console looks at the guest through xl console, as an operator does.
func (p *Pair) Console(ctx context.Context, g *Guest) error {
	out, err := p.B().Shell(ctx, fmt.Sprintf("timeout 60 xl console %s </dev/null | grep -m1 '^tick '; true", g.Name))
	if err == nil {
		if _, ok := check.ParseTick(strings.TrimSpace(out)); !ok {
			err = fmt.Errorf("xl console shows no tick within a minute but %q", out)
		}
	}
	return err
}

// Reboot has xl reboot the guest on host h, and waits until it has booted again.
func (p *Pair) Reboot(ctx context.Context, h *lab.Host, g *Guest) error {
	before, err := g.Status(ctx, h)
	if err != nil {
		return err
	}
	old, err := g.DomID(ctx, h)
	if err != nil {
		return err
	}
	if _, err := h.Run(ctx, "xl", "reboot", g.Name); err != nil {
		return err
	}
	err = until(ctx, settle, func() error {
		out, err := h.Run(ctx, "xl", "domid", g.Name)
		if err == nil && strings.TrimSpace(out) == old {
			err = fmt.Errorf("guest %s still is domain %s", g.Name, old)
		}
		if err == nil { // xl may be amid making it
			_, err = h.Run(ctx, "xenstore-read", "/local/domain/"+strings.TrimSpace(out)+"/console/tty")
		}
		return err
	})
	if err != nil {
		return err
	}
	g.mu.Lock()
	delete(g.dom, h)
	g.mu.Unlock()
	after, err := g.Status(ctx, h)
	if err == nil && after.BootID == before.BootID {
		err = fmt.Errorf("guest %s has not booted again", g.Name)
	}
	return err
}

// Shutdown shuts the guest down by xl: its own kernel sees the request.
func (p *Pair) Shutdown(ctx context.Context, g *Guest) error {
	from := g.Len()
	ctx, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	if _, err := p.B().Run(ctx, "xl", "shutdown", "-w", g.Name); err != nil {
		return fmt.Errorf("%w; its console's end:\n%s", err, g.end())
	}
	_, _, err := g.Wait(ctx, p.B(), from, 10*time.Second, "bye", func(s string) bool { return s == "bye" })
	return err
}
