// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/kemari-ft/kemari/toolstack/config"
	"github.com/kemari-ft/kemari/toolstack/host"
	"github.com/kemari-ft/kemari/toolstack/lease"
	"github.com/kemari-ft/kemari/toolstack/secondary"
	"github.com/kemari-ft/kemari/toolstack/secondary/hosttest"
	"github.com/kemari-ft/kemari/xen/kemariop"
)

func aDaemon(t *testing.T) *Daemon {
	t.Helper()
	dom := hosttest.New(t, uuid.New(), "web", false, kemariop.RoleNone)
	dom.Host.Config = config.Default()
	return &Daemon{
		host: dom.Host, primaries: map[uuid.UUID]*guarded{}, secondaries: map[uuid.UUID]*secondary.Receiver{},
		activations: map[uuid.UUID]secondary.Activation{},
	}
}

// A guest whose reboot fails because the peer is away is not there to be unprotected,
// and would not come back if it could not be.
func TestUnprotectGuestThatIsNotThere(t *testing.T) {
	for _, by := range []string{"db", "UUID"} {
		d, id := aDaemon(t), uuid.New()
		if by == "UUID" {
			by = id.String()
		}
		if err := d.host.Records.SetPolicy(id, host.Policy{Name: "db"}); err != nil {
			t.Fatal(err)
		}
		if err := d.unprotect(t.Context(), by, false, func(string) {}); err != nil {
			t.Errorf("%s: %v", by, err)
		}
		if policy, err := d.host.Records.Policy(id); policy != nil || err != nil {
			t.Errorf("%s: it would be protected again: %v, %v", by, policy, err)
		}
		if err := d.unprotect(t.Context(), "db", false, func(string) {}); err == nil {
			t.Error("a guest that nobody knows any more was unprotected")
		}
	}
}

// Which of two is meant is for the operator to say.
func TestUnprotectOneOfSeveral(t *testing.T) {
	d := aDaemon(t)
	for range 2 {
		if err := d.host.Records.SetPolicy(uuid.New(), host.Policy{Name: "db"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.unprotect(t.Context(), "db", false, func(string) {}); err == nil || !strings.Contains(err.Error(), "several") {
		t.Errorf("got %v, want an error that names them", err)
	}
}

// An unprotect that comes while somebody waits for the first copy is not undone.
func TestUnwantedIsNotRemembered(t *testing.T) {
	d, id := aDaemon(t), uuid.New()
	g := &guarded{policy: host.Policy{Name: "db"}}
	if _, err := d.forget(id, g); err != nil {
		t.Fatal(err)
	}
	if err := d.remember(id, g); err != nil {
		t.Fatal(err)
	}
	if policy, err := d.host.Records.Policy(id); policy != nil || err != nil {
		t.Errorf("it would be protected again: %v, %v", policy, err)
	}
}

func TestActivatedGuestIsNotProtectedWhenItReboots(t *testing.T) {
	d, id := aDaemon(t), uuid.New()
	if err := d.host.Records.SetPolicy(id, host.Policy{Name: "db"}); err != nil {
		t.Fatal(err)
	}
	d.activated(secondary.Activation{Guest: id})
	if policy, err := d.host.Records.Policy(id); policy != nil || err != nil {
		t.Errorf("it would be: %v, %v", policy, err)
	}
}

func TestStatusAfterHostWentDown(t *testing.T) {
	d, id := aDaemon(t), uuid.New()
	if err := d.host.Records.Persist(lease.Record{Guest: id, Role: lease.Primary, Phase: lease.Protecting, Generation: 3}); err != nil {
		t.Fatal(err)
	}
	g, err := d.describe(id, false)
	if err != nil || !strings.Contains(g.Text, "look on the peer") {
		t.Errorf("got %+v, %v", g, err)
	}
}

func TestCautions(t *testing.T) {
	c := config.Default()
	if got := cautions(c); len(got) != 3 {
		t.Errorf("an empty kemari.conf: got %q, want three warnings", got)
	}
	c.Fence, c.HeartbeatSecond, c.Listen = []string{"/fence"}, "192.0.2.1:1", config.URI{Transport: "tcp", Address: "192.0.2.1:2"}
	if got := cautions(c); len(got) != 0 {
		t.Errorf("a whole one: got %q, want none", got)
	}
}
