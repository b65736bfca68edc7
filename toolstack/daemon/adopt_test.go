// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/kemari-ft/kemari/toolstack/host"
	"github.com/kemari-ft/kemari/toolstack/lease"
	"github.com/kemari-ft/kemari/toolstack/secondary"
	"github.com/kemari-ft/kemari/toolstack/secondary/hosttest"
	"github.com/kemari-ft/kemari/toolstack/shell/xlstream"
	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/xen/kemariop"
)

// activated is a daemon on a host with a domain that its record says was
// activated there, and the domain.
func activated(t *testing.T, name string, paused bool, role kemariop.Role) (*Daemon, *hosttest.Domain, uuid.UUID) {
	t.Helper()
	json, err := os.ReadFile("../shell/xlstream/testdata/pvh.json")
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := xlstream.ParseConfig(json)
	if err != nil {
		t.Fatal(err)
	}
	guest := uuid.MustParse(cfg.UUID())
	dom := hosttest.New(t, guest, name, paused, role)
	for _, file := range []string{"libxl-json", "kemari-json"} {
		if err := os.WriteFile(filepath.Join(dom.Dir, "userdata-d.4242."+cfg.UUID()+"."+file), json, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rec := lease.Record{Guest: guest, Role: lease.Secondary, Generation: 2, Phase: lease.Running, Epoch: 17}
	if err := dom.Host.Records.Persist(rec); err != nil {
		t.Fatal(err)
	}
	return &Daemon{host: dom.Host, primaries: map[uuid.UUID]*guarded{}, secondaries: map[uuid.UUID]*secondary.Receiver{}}, dom, guest
}

// TestActivatedGuestIsNotCopiedOver: a HELLO about a guest that runs here is
// refused, whatever xl calls it.
func TestActivatedGuestIsNotCopiedOver(t *testing.T) {
	for _, name := range []string{"web", "web--kemari"} {
		d, _, guest := activated(t, name, false, kemariop.RoleNone)
		r, reasons, err := d.receiver(guest)
		if r != nil || len(reasons) != 0 || err == nil || !strings.Contains(err.Error(), "exists on this host already") {
			t.Errorf("%s: the HELLO is not refused: %v, %v", name, reasons, err)
		}
	}
}

// TestProtectTellsCopies: what bears a shell's name is a copy, or was one.
func TestProtectTellsCopies(t *testing.T) {
	d, dom, guest := activated(t, "web--kemari", false, kemariop.RoleNone)
	protect := func() string { return fmt.Sprint(d.protect(t.Context(), guest.String(), "", 0, func(string) {})) }
	if text := protect(); !strings.Contains(text, "it was activated here, from epoch 17 of generation 2 on") {
		t.Errorf("an activated guest: %s", text)
	}
	d, dom, guest = activated(t, "web--kemari", true, kemariop.RoleSecondary)
	rec := lease.Record{Guest: guest, Role: lease.Secondary, Generation: 2, Phase: lease.Protecting}
	if err := dom.Host.Records.Persist(rec); err != nil {
		t.Fatal(err)
	}
	if text := protect(); !strings.Contains(text, "copy of a guest that runs on the peer") {
		t.Errorf("a copy: %s", text)
	}
}

// TestAdoptFinishesActivation: a guest whose activation a daemon did not end has
// its name, and runs.
func TestAdoptFinishesActivation(t *testing.T) {
	for _, paused := range []bool{false, true} {
		d, dom, guest := activated(t, "web--kemari", paused, kemariop.RoleNone)
		for range 2 {
			if err := d.adoptGuest(guest); err != nil {
				t.Fatal(err)
			}
			if name := dom.Name(); name != "web" {
				t.Errorf("the guest is named %q", name)
			}
			if dom.Paused() {
				t.Error("the guest does not run")
			}
		}
		if dom.Told("rename 4242 web\nrename") {
			t.Error("it was renamed twice")
		}
	}
	// What was not ready to run does not.
	d, dom, guest := activated(t, "web--kemari", true, kemariop.RoleSecondary)
	if err := d.adoptGuest(guest); err != nil {
		t.Fatal(err)
	}
	if !dom.Paused() || dom.Name() != "web--kemari" {
		t.Errorf("a shell without the guest's state was let run, as %q", dom.Name())
	}
}

// TestPeerIsTheRecords: a guest is taken up with the peer that holds its copy, whatever
// kemari.conf and the policy name by now.
func TestPeerIsTheRecords(t *testing.T) {
	d, dom, guest := activated(t, "web", false, kemariop.RolePrimary)
	rec := lease.Record{Guest: guest, Role: lease.Primary, Generation: 3, Phase: lease.Protecting, Peer: "kemari:nowhere:1"}
	if err := dom.Host.Records.Persist(rec); err != nil {
		t.Fatal(err)
	}
	if err := dom.Host.Records.SetPolicy(guest, host.Policy{Name: "web", Peer: "kemari:unix:/run/other"}); err != nil {
		t.Fatal(err)
	}
	if err := d.adoptGuest(guest); err == nil || !strings.Contains(err.Error(), rec.Peer) {
		t.Errorf("it is taken up with another peer than %s: %v", rec.Peer, err)
	}
}

// TestTakenOver: whoever let go of a guest that was activated here hears so, and nobody
// else.
func TestTakenOver(t *testing.T) {
	d, _, guest := activated(t, "web", false, kemariop.RoleNone) // generation 2
	for generation, want := range map[uint64]bool{1: true, 2: true, 3: false} {
		if got := d.takenOver(&stream.Hello{Guest: guest, Generation: generation}); got != want {
			t.Errorf("generation %d: %v, want %v", generation, got, want)
		}
	}
	if d.takenOver(&stream.Hello{Guest: uuid.New(), Generation: 1}) {
		t.Error("a guest that nobody knows of was taken over")
	}
}
