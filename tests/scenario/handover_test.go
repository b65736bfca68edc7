// SPDX-License-Identifier: Apache-2.0

//go:build lab

package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kemari-ft/kemari/tests/check"
	"github.com/kemari-ft/kemari/tests/pair"
	"github.com/kemari-ft/kemari/tools/lab/lab"
	"github.com/kemari-ft/kemari/toolstack/control"
	"github.com/kemari-ft/kemari/toolstack/lease"
)

// TestHandOver lets a guest with a disk go on on the other host by the operator's
// wish, while both are well, protects it there, and gives it back; and then does what
// one does with any guest. Before that guests are refused that cannot be protected, and
// on b another one is rebooted and destroyed under protection, and not saved.
func TestHandOver(t *testing.T) {
	p, others := startPair(t.Context(), t)
	handOver(t, p, others)
}

func handOver(t *testing.T, p *pair.Pair, others []*bystander) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	t.Run("packages", func(t *testing.T) { xenPackages(ctx, t, others[1]) })
	t.Run("xencommons", func(t *testing.T) { xencommons(ctx, t, p, p.B()) })
	t.Run("refusals", func(t *testing.T) { refusals(ctx, t, p) })
	t.Run("unpatched xl", func(t *testing.T) { unpatchedXL(ctx, t, p) })
	t.Run("reboot", func(t *testing.T) { rebootProtected(ctx, t, p, p.B()) })
	var g *pair.Guest
	t.Run("to and fro", func(t *testing.T) { g = toAndFro(ctx, t, p) })
	if t.Failed() {
		return
	}
	t.Run("broken off", func(t *testing.T) { brokenOff(ctx, t, p, g) })
	for _, b := range others {
		b.undisturbed(ctx, t)
	}
}

// toAndFro hands a guest of host a over to b, and back.
func toAndFro(ctx context.Context, t *testing.T, p *pair.Pair) *pair.Guest {
	t.Helper()
	mark := len(p.Lab.LUN("lun0").Log())
	g, err := p.Create(ctx, p.A(), pair.Spec{Name: "ft", Kernel: small, MemoryMiB: smallMiB, Disk: "/dev/lun/lun0", Extra: "guest.tick_ms=500"}, true)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := p.A().Run(ctx, "kemari", "failover", "--peer-is-off", g.Name); err == nil {
		t.Errorf("a guest is given to a host that is off: %s", out)
	}
	if _, err := p.Protected(ctx, p.A(), g.Name); err != nil {
		t.Fatal(err)
	}
	statusForPrograms(ctx, t, p, g)
	if _, err := g.Status(ctx, p.A()); err != nil {
		t.Fatal(err)
	}
	attach := "truncate -s 16M /var/extra.img; xl block-attach " + g.Name + " format=raw,vdev=xvdb,access=w,backendtype=tap,script=block-kemari,target=/var/extra.img 2>&1"
	if out, err := p.A().Shell(ctx, attach); err == nil || !strings.Contains(out+err.Error(), "does not know of this disk") {
		t.Errorf("a disk is attached to a protected guest: %v\n%s", err, out)
	}
	if err := g.Obey(ctx, p.A(), "load disk"); err != nil {
		t.Fatal(err)
	}
	before, err := g.Status(ctx, p.A())
	if err != nil {
		t.Fatal(err)
	}
	o, err := p.HandOver(ctx, g, &before, mark)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%v from the order to the guest's next tick", o.Tick.Sub(o.Cut).Round(time.Millisecond))
	if out, err := p.A().Run(ctx, "xl", "list"); err != nil || strings.Contains(out, g.Name) {
		t.Errorf("host a still has the guest: %v\n%s", err, out)
	}
	// There is nothing that a could give away any more.
	if out, err := p.A().Run(ctx, "kemari", "failover", g.Name); err == nil {
		t.Errorf("the guest is handed over twice: %s", out)
	}
	if err := p.Console(ctx, g); err != nil {
		t.Error(err)
	}
	giveBack(ctx, t, p, g)
	if err := p.Reboot(ctx, p.A(), g); err != nil {
		t.Fatalf("xl reboot: %v", err)
	}
	return g
}

// statusForPrograms: kemari status --json of a protected guest is one that can be read.
func statusForPrograms(ctx context.Context, t *testing.T, p *pair.Pair, g *pair.Guest) {
	t.Helper()
	out, err := p.A().Run(ctx, "kemari", "status", "--json", g.Name)
	var reply control.Reply
	if err == nil {
		err = json.Unmarshal([]byte(out), &reply)
	}
	if err != nil || len(reply.Guests) != 1 || reply.Guests[0].Name != g.Name || reply.Guests[0].Role != control.RolePrimary {
		t.Errorf("kemari status --json %s: %v\n%s", g.Name, err, out)
	}
}

// brokenOff kills the daemon of a protected guest, and takes what it needs to take up
// the guest's disk again: the guest's output stays held, and kemarid says why and serves
// on. Once it has been given back, so does the guest. If it is lost for good, the guest
// can be destroyed.
func brokenOff(ctx context.Context, t *testing.T, p *pair.Pair, g *pair.Guest) {
	t.Helper()
	a := p.A()
	if out, err := a.Run(ctx, "kemari", "protect", g.Name); err != nil {
		t.Fatalf("%v\n%s\nkemarid on host a:\n%s", err, out, pair.DaemonOutput(a))
	}
	if err := g.Obey(ctx, a, "load disk"); err != nil {
		t.Fatal(err)
	}
	dom, err := g.DomID(ctx, a)
	if err != nil {
		t.Fatal(err)
	}
	journal := "/run/kemari/journal/" + dom + "-*"
	breakOff := func(how, refused string) control.Guest {
		t.Helper()
		if _, err := a.Shell(ctx, "kill -KILL $(pidof kemarid); "+how); err != nil {
			t.Fatal(err)
		}
		if err := p.StartDaemon(ctx, a); err != nil {
			t.Fatal(err)
		}
		st, err := p.WaitState(ctx, a, g.Name, "broken off", func(s control.Guest) bool {
			return strings.Contains(s.Text, "broke off") && strings.Contains(s.Text, "journal")
		})
		if err != nil {
			t.Fatal(err)
		}
		if st.State != string(lease.Protecting) {
			t.Errorf("of a guest whose session broke off host a says %+v", st)
		}
		if out, err := a.Run(ctx, "kemari", refused, g.Name); err == nil {
			t.Errorf("kemari %s of a guest whose session broke off succeeds: %s", refused, out)
		}
		return st
	}

	breakOff("mkdir -p /var/away; mv "+journal+" /var/away", "protect")
	// What one try has left must not be in the way of the next, and the log not be filled.
	said := fmt.Sprintf("sleep 3; grep -c 'session broke off.* guest=%s ' %s", g.Name, pair.DaemonLog)
	if out, err := a.Shell(ctx, said); strings.TrimSpace(out) != "1" {
		t.Errorf("a reason that lasts is told %s times: %v\n%s", strings.TrimSpace(out), err, pair.DaemonOutput(a))
	}
	if _, err := a.Shell(ctx, "mv /var/away/* /run/kemari/journal"); err != nil {
		t.Fatal(err)
	}
	if _, err := p.WaitState(ctx, a, g.Name, "taken up again", func(s control.Guest) bool {
		return s.Syncs > 0 && !strings.Contains(s.Text, "broke off")
	}); err != nil {
		t.Fatal(err)
	}
	if v, err := g.Verify(ctx, a); err != nil {
		t.Errorf("once its journal is there again: %v, %+v", err, v)
	}

	// The latter is remembered, and comes to nothing as long as there is no session.
	st := breakOff("rm "+journal, "unprotect")
	destroyProtected(ctx, t, p, a, g)
	for _, h := range []*lab.Host{a, p.B()} {
		// Which of the two comes first, the end of the protection that was asked for or
		// that of the guest, is all the same.
		ended := fmt.Sprintf("for i in $(seq 60); do kemari status %s | grep -qE '%s|%s' && exit; sleep 1; done; kemari status %s; exit 1", st.UUID, lease.Ended, lease.Gone, st.UUID)
		if out, err := h.Shell(ctx, ended); err != nil {
			t.Errorf("host %s after xl destroy: %v\n%s\n%s", h.Name, err, out, pair.DaemonOutput(h))
		}
	}
}

// destroyProtected destroys a protected guest of a host, of which then nothing is left
// on either.
func destroyProtected(ctx context.Context, t *testing.T, p *pair.Pair, on *lab.Host, g *pair.Guest) {
	t.Helper()
	if _, err := on.Run(ctx, "xl", "destroy", g.Name); err != nil {
		t.Fatal(err)
	}
	for _, h := range []*lab.Host{p.A(), p.B()} {
		// The copy is destroyed once its primary has said that the guest has ended.
		if out, err := h.Shell(ctx, "for i in $(seq 60); do xl list | grep -q "+g.Name+" || exit 0; sleep 1; done; xl list; exit 1"); err != nil {
			t.Errorf("host %s after xl destroy: %v\n%s", h.Name, err, out)
		}
	}
}

// rebootProtected reboots a protected guest, which then is protected again, and
// destroys it, of which then nothing is left on either host. Before that it is not
// saved.
func rebootProtected(ctx context.Context, t *testing.T, p *pair.Pair, h *lab.Host) {
	t.Helper()
	g, err := p.Create(ctx, h, pair.Spec{Name: "again", Kernel: small, MemoryMiB: smallMiB, Extra: "guest.tick_ms=500"}, true)
	if err != nil {
		t.Fatal(err)
	}
	before, err := p.Protected(ctx, h, g.Name)
	if err != nil {
		t.Fatal(err)
	}
	notSaved(ctx, t, p, h, g, before)
	if err := p.Reboot(ctx, h, g); err != nil {
		t.Fatalf("xl reboot of a protected guest: %v", err)
	}
	after, err := p.Protected(ctx, h, g.Name)
	if err != nil {
		t.Fatal(err)
	}
	if after.Generation <= before.Generation || after.UUID != before.UUID {
		t.Errorf("after its reboot it is %+v, before it was %+v", after, before)
	}
	destroyProtected(ctx, t, p, h, g)
}

// giveBack protects on b a guest that was handed over to it, lets it go on on a
// again, and protects it there: what is to be done after each failover.
func giveBack(ctx context.Context, t *testing.T, p *pair.Pair, g *pair.Guest) {
	t.Helper()
	if out, err := p.B().Run(ctx, "kemari", "protect", g.Name); err != nil {
		t.Fatalf("%v\n%s\nkemarid on host b:\n%s", err, out, pair.DaemonOutput(p.B()))
	}
	before, err := g.Status(ctx, p.B())
	if err != nil {
		t.Fatal(err)
	}
	if out, err := p.B().Run(ctx, "kemari", "failover", g.Name); err != nil {
		t.Fatalf("%v\n%s\nkemarid on host b:\n%s", err, out, pair.DaemonOutput(p.B()))
	}
	after, err := g.Status(ctx, p.A())
	if err != nil {
		t.Fatalf("%v\nkemarid on host a:\n%s", err, pair.DaemonOutput(p.A()))
	}
	if err := check.Continuity(before, after, pair.MaxJump); err != nil {
		t.Errorf("the guest that was given back is not the same any more: %v", err)
	}
	disk, err := check.Disk(p.Lab.LUN("lun0"), after)
	if err == nil {
		err = disk.Err()
	}
	if err != nil {
		t.Errorf("the disk of the guest that was given back: %v", err)
	}
	// Where it ran a copy lies again, and says so.
	if out, err := p.A().Run(ctx, "kemari", "protect", g.Name); err != nil {
		t.Fatalf("%v\n%s\nkemarid on host a:\n%s", err, out, pair.DaemonOutput(p.A()))
	}
	copied, err := p.State(ctx, p.B(), g.Name)
	if err != nil || copied.Role != control.RoleSecondary || copied.State != "protecting" || copied.Activation != nil {
		t.Errorf("of the copy host b says %+v, %v", copied, err)
	}
	if out, err := p.A().Run(ctx, "kemari", "unprotect", g.Name); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// xenPackages runs the tests of the packages below xen/ that need a Xen, and a
// guest to look at.
func xenPackages(ctx context.Context, t *testing.T, b *bystander) {
	t.Helper()
	dom, err := b.guest.DomID(ctx, b.h)
	if err != nil {
		t.Fatal(err)
	}
	for _, pkg := range []string{"xen/internal/integration", "xen/kemariop"} {
		file := filepath.Join(t.TempDir(), "xentest")
		build := exec.CommandContext(ctx, "go", "test", "-c", "-o", file, module+pkg)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if err := b.h.Push(ctx, file, "/run/xentest"); err != nil {
			t.Fatal(err)
		}
		only := ""
		if pkg == "xen/kemariop" { // the others need no Xen
			only = "-test.run=OnXen"
		}
		out, err := b.h.Shell(ctx, "cd /run && chmod +x xentest && XEN_TEST_DOMID="+dom+" ./xentest -test.v "+only)
		if err != nil || strings.Contains(out, "--- SKIP") || !strings.Contains(out, "--- PASS") {
			t.Errorf("%s on Xen: %v\n%s", pkg, err, out)
			continue
		}
		t.Logf("%s on Xen: %d tests passed", pkg, strings.Count(out, "--- PASS"))
	}
}
