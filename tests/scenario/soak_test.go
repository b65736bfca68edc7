// SPDX-License-Identifier: Apache-2.0

//go:build lab

package scenario

import (
	"context"
	"fmt"
	"math/rand"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kemari-ft/kemari/tests/check"
	"github.com/kemari-ft/kemari/tests/pair"
	"github.com/kemari-ft/kemari/tools/lab/ether"
	"github.com/kemari-ft/kemari/tools/lab/lab"
	"github.com/kemari-ft/kemari/tools/lab/nbd"
	"github.com/kemari-ft/kemari/toolstack/control"
	"github.com/kemari-ft/kemari/toolstack/lease"
)

// soak is one test's state.
type soak struct {
	p    *pair.Pair
	rnd  *rand.Rand
	last bool       // there is no round after this one
	on   chan error // tells that host a was powered on again for the next one
}

// instant is when the power goes.
type instant struct {
	name string
	disk bool
	// booting guests cannot be asked before the cut.
	booting     bool
	debian      bool // boots Debian's kernel, and for longer
	emulatedTSC bool // see pair.Spec
	// prepare brings the guest to the instant, and answers what is to be done
	// when the host is dead.
	prepare func(ctx context.Context, t *testing.T, s *soak, g *pair.Guest) func()
}

var instants = []instant{
	{name: "mid-write", disk: true, debian: true, prepare: midWrite},
	{name: "acknowledged but not released", disk: true, prepare: acknowledged},
	{name: "first copy"}, // see firstCopy
	{name: "boot", booting: true, debian: true, prepare: boot},
	{name: "mid-send", disk: true, prepare: midSend},
	{name: "frozen", disk: true, prepare: frozen},
	{name: "daemon killed", disk: true, prepare: daemonKilled},
	{name: "copy lost", disk: true, prepare: copyLost},
	{name: "killed in boot", disk: true, booting: true, debian: true, prepare: killedInBoot},
	{name: "idle", emulatedTSC: true, prepare: idle},
}

// TestSoak cuts the power of the host that runs the guest N times, at instants
// that differ in what is under way. Their guests boot the small kernel, where that
// makes no difference, and Debian's when each kind comes again. SEED makes the same
// choices again, INSTANT takes some kinds only.
func TestSoak(t *testing.T) {
	p, others := startPair(t.Context(), t)
	powerCuts(t, p, others)
}

// TestTwoHosts is TestHandOver and TestSoak in one lab, which is booted once.
func TestTwoHosts(t *testing.T) {
	p, others := startPair(t.Context(), t)
	if t.Run("hand over", func(t *testing.T) { handOver(t, p, others) }) {
		t.Run("soak", func(t *testing.T) { powerCuts(t, p, others) })
	}
}

func powerCuts(t *testing.T, p *pair.Pair, others []*bystander) {
	rounds := number(t, "N", 3)
	seed := int64(number(t, "SEED", int(time.Now().UnixNano()%1e9)))
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rounds+2)*20*time.Minute)
	defer cancel()
	kinds := chosen(os.Getenv("INSTANT"))
	if len(kinds) == 0 {
		t.Fatalf("INSTANT=%s is none of %+v", os.Getenv("INSTANT"), instants)
	}
	s := &soak{p: p, rnd: rand.New(rand.NewSource(seed)), on: make(chan error, 1)}
	t.Logf("SEED=%d", seed)
	passed := 0
	for i := range rounds {
		at := kinds[i%len(kinds)]
		s.last = i == rounds-1
		at.debian = at.debian || i/len(kinds)%2 == 1
		ok := t.Run(fmt.Sprintf("%d %s", i+1, at.name), func(t *testing.T) {
			if at.prepare == nil {
				s.firstCopy(ctx, t, at)
			} else {
				s.round(ctx, t, at)
			}
			others[1].undisturbed(ctx, t)
		})
		if !ok {
			break // what there is to see is in the logs
		}
		passed++
		if !s.last {
			if err := <-s.on; err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("%d of %d power cuts survived", passed, rounds)
}

// chosen are the instants whose names begin with one of the words, which are
// separated by commas; all of them if there is no word.
func chosen(words string) []instant {
	return slices.DeleteFunc(slices.Clone(instants), func(i instant) bool {
		return !slices.ContainsFunc(strings.Split(words, ","), func(w string) bool { return strings.HasPrefix(i.name, w) })
	})
}

func (s *soak) spec(i instant) pair.Spec {
	spec := pair.Spec{Name: fmt.Sprintf("ft%d", s.rnd.Intn(1e6)), VCPUs: 1 + s.rnd.Intn(2), EmulatedTSC: i.emulatedTSC, Extra: "guest.tick_ms=500"}
	if !i.debian {
		spec.Kernel, spec.MemoryMiB = small, smallMiB
	}
	if i.disk {
		spec.Disk = "/dev/lun/lun0"
	}
	return spec
}

func (s *soak) round(ctx context.Context, t *testing.T, at instant) {
	p := s.p
	mark := len(p.Lab.LUN("lun0").Log())
	spec := s.spec(at)
	g, err := p.Create(ctx, p.A(), spec, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Protected(ctx, p.A(), spec.Name); err != nil {
		t.Fatal(err)
	}
	t.Logf("guest %s, %d vCPUs", spec.Name, spec.VCPUs)
	var before *check.Status
	if !at.booting {
		if _, err := g.Status(ctx, p.A()); err != nil {
			t.Fatal(err)
		}
		if spec.Disk != "" {
			if err := g.Obey(ctx, p.A(), "load disk"); err != nil {
				t.Fatal(err)
			}
		}
	}
	c, err := p.Compare(ctx, g, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("at epoch %d guest and shell have the same %d pages (and %d that travel with the rings)", c.Epoch, c.Pages, c.Always)
	if !at.booting {
		st, err := p.Before(ctx, g)
		if err != nil {
			t.Fatal(err)
		}
		before = &st
	}
	meanwhile := at.prepare(ctx, t, s, g)
	o, err := p.Cut(ctx, g, func() {
		p.Lab.Net("repl").Heal()
		if meanwhile != nil {
			meanwhile()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	s.powerOn(ctx)
	if o, err = p.Judge(ctx, g, before, mark, o); err != nil {
		t.Fatal(err)
	}
	report(t, o)
	// It has to make room for the next one.
	if err := p.Shutdown(ctx, g); err != nil {
		t.Fatal(err)
	}
}

// powerOn boots host a for the next round, if there is one, while this one is judged.
func (s *soak) powerOn(ctx context.Context) {
	if !s.last {
		go func() { s.on <- s.p.Repair(ctx, "a") }()
	}
}

// some waits a moment that nobody can foresee.
func (s *soak) some(t *testing.T, most time.Duration) {
	d := time.Duration(s.rnd.Int63n(int64(most)))
	t.Logf("cut after %v", d.Round(time.Millisecond))
	time.Sleep(d)
}

func idle(_ context.Context, t *testing.T, s *soak, _ *pair.Guest) func() {
	s.some(t, 5*time.Second)
	return nil
}

func boot(_ context.Context, t *testing.T, s *soak, _ *pair.Guest) func() {
	s.some(t, 12*time.Second)
	return nil
}

// midWrite: requests are under way to the disk.
func midWrite(ctx context.Context, t *testing.T, s *soak, _ *pair.Guest) func() {
	hold := s.p.Lab.LUN("lun0").Add(&nbd.Rule{Match: nbd.Match{Host: "a", Ops: []nbd.Op{nbd.Write}}, Hold: true})
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := hold.Taken(ctx, 1+s.rnd.Intn(2)); err != nil {
		t.Fatal(err)
	}
	return func() {
		hold.Remove()
		// Either they never reach the disk, or they do so at the last moment.
		if s.rnd.Intn(2) == 0 {
			t.Logf("%d held writes are lost", hold.Discard())
		} else {
			t.Logf("%d held writes land after the host's death", hold.Release())
		}
	}
}

// frozen: the guest was stopped at an output, and nobody has looked at it yet.
func frozen(ctx context.Context, t *testing.T, s *soak, g *pair.Guest) func() {
	if _, err := s.p.A().Shell(ctx, "kill -STOP $(pidof kemarid)"); err != nil {
		t.Fatal(err)
	}
	// It stands still when it has not printed anything for a while.
	for n := -1; n != g.Len(); time.Sleep(3 * time.Second) {
		n = g.Len()
	}
	return nil
}

// daemonKilled: the guest's daemon was killed in the midst of it, and another one
// has taken it up.
func daemonKilled(ctx context.Context, t *testing.T, s *soak, g *pair.Guest) func() {
	before := s.killDaemon(ctx, t, s.p.A(), g)
	s.protectedAgain(ctx, t, g, func(st control.Guest) bool {
		return st.Generation == before.Generation && st.Epoch > before.Epoch+3
	})
	s.some(t, 2*time.Second)
	return nil
}

// killedInBoot: the guest's daemon was killed before the guest had connected its
// disk, so that it is the next one which does.
func killedInBoot(ctx context.Context, t *testing.T, s *soak, g *pair.Guest) func() {
	s.killDaemon(ctx, t, s.p.A(), g)
	if _, err := g.Status(ctx, s.p.A()); err != nil {
		t.Fatal(err)
	}
	if err := g.Obey(ctx, s.p.A(), "load disk"); err != nil {
		t.Fatal(err)
	}
	s.some(t, 5*time.Second)
	// Nothing is committed any more, so that nothing may be written either.
	s.p.Lab.Net("repl").Impair("a", "b", ether.Impairment{Down: true})
	time.Sleep(2 * time.Second)
	return nil
}

// copyLost: the other host's daemon was killed, and the copy with it, so that
// there was a new one to be made.
func copyLost(ctx context.Context, t *testing.T, s *soak, g *pair.Guest) func() {
	before := s.killDaemon(ctx, t, s.p.B(), g)
	s.protectedAgain(ctx, t, g, func(st control.Guest) bool {
		return st.Generation > before.Generation && st.Epoch > 3
	})
	s.some(t, 2*time.Second)
	return nil
}

// killDaemon kills kemarid of a host, and starts another one soon.
func (s *soak) killDaemon(ctx context.Context, t *testing.T, h *lab.Host, g *pair.Guest) control.Guest {
	s.some(t, 2*time.Second)
	before, err := s.p.State(ctx, s.p.A(), g.Name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Shell(ctx, "kill -KILL $(pidof kemarid)"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Duration(s.rnd.Int63n(int64(2 * time.Second))))
	if err := s.p.StartDaemon(ctx, h); err != nil {
		t.Fatal(err)
	}
	return before
}

func (s *soak) protectedAgain(ctx context.Context, t *testing.T, g *pair.Guest, is func(control.Guest) bool) {
	_, err := s.p.WaitState(ctx, s.p.A(), g.Name, "protected again", func(st control.Guest) bool {
		return st.State == string(lease.Protecting) && is(st)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// midSend: an epoch is on its way, in part.
func midSend(ctx context.Context, t *testing.T, s *soak, g *pair.Guest) func() {
	if err := g.Obey(ctx, s.p.A(), "load mem=8,8"); err != nil {
		t.Fatal(err)
	}
	s.some(t, 3*time.Second)
	s.p.Lab.Net("repl").Impair("a", "b", ether.Impairment{Down: true})
	time.Sleep(time.Duration(s.rnd.Int63n(int64(time.Second))))
	return nil
}

// acknowledged: the secondary has the epoch, the primary does not know.
func acknowledged(ctx context.Context, t *testing.T, s *soak, g *pair.Guest) func() {
	c, err := s.p.Compare(ctx, g, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("epoch %d is acknowledged and not released; the same %d pages", c.Epoch, c.Pages)
	return nil
}

// firstCopy cuts the power while the guest is being copied for the first time:
// there is nothing yet that could go on, and that has to be said.
func (s *soak) firstCopy(ctx context.Context, t *testing.T, at instant) {
	p := s.p
	// What is to be protected later needs a domid that is free on both hosts.
	if _, err := p.A().Shell(ctx, `echo 'domid_policy="random"' >>/etc/xen/xl.conf`); err != nil {
		t.Fatal(err)
	}
	spec := s.spec(at)
	spec.MemoryMiB = 96 // which takes a while
	g, err := p.Create(ctx, p.A(), spec, false)
	if err != nil {
		t.Fatal(err)
	}
	g.Watch(ctx, p.B())
	if _, err := g.Status(ctx, p.A()); err != nil {
		t.Fatal(err)
	}
	call, err := p.A().Start(nil, "kemari", "protect", spec.Name)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = call.Wait(ctx, &strings.Builder{}, &strings.Builder{}) }()
	// The shell is there, the copy not yet.
	until := time.Now().Add(3 * time.Minute)
	for copied := false; !copied; {
		st, err := p.State(ctx, p.A(), spec.Name)
		switch {
		case err == nil && st.State == "protecting":
			t.Fatal("the first copy was over before the power could be cut")
		case err == nil && st.Copied > 0:
			copied = true
		case time.Now().After(until):
			t.Fatalf("the first copy does not begin: %+v, %v\n%s", st, err, pair.DaemonOutput(p.A()))
		}
	}
	from := g.Len()
	p.A().Cut()
	p.Lab.Net("repl").Heal()
	if err := s.notProtected(ctx, p.B(), spec.Name); err != nil {
		t.Fatal(err)
	}
	s.powerOn(ctx)
	for _, l := range g.Lines(from) {
		if _, ok := check.ParseTick(l.Text); ok && l.Host == "b" {
			t.Fatalf("host b runs a guest of which it holds a part: %s", l.Text)
		}
	}
}

// notProtected waits until host b says that the guest was not yet protected, and
// has no shell of it any more. Host b has to stay with that.
func (s *soak) notProtected(ctx context.Context, b *lab.Host, name string) error {
	const looks = 3
	for n, end := 0, time.Now().Add(5*time.Minute); n < looks; time.Sleep(time.Second) {
		said, err := b.Run(ctx, "kemari", "status")
		if err != nil {
			return err
		}
		list, err := b.Run(ctx, "xl", "list")
		if err != nil {
			return err
		}
		switch {
		case strings.Contains(said, "not yet protected") && !strings.Contains(list, name):
			n++
		case n > 0 || time.Now().After(end):
			return fmt.Errorf("host b does not say, or not for long, that %s was not yet protected, or keeps a shell of it:\n%s\n%s\n%s", name, said, list, pair.DaemonOutput(b))
		}
	}
	return nil
}
