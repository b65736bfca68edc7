// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/kemari-ft/kemari/toolstack/config"
	"github.com/kemari-ft/kemari/toolstack/host"
	"github.com/kemari-ft/kemari/toolstack/lease"
	"github.com/kemari-ft/kemari/toolstack/secondary/hosttest"
	"github.com/kemari-ft/kemari/xen/kemariop"
)

// TestI14SecondStart: neither xl nor the disk back end starts a guest that was
// protected, but with proof that the other host does not run it.
func TestI14SecondStart(t *testing.T) {
	dom := hosttest.New(t, uuid.New(), "web", true, kemariop.RoleNone)
	d := &Daemon{host: dom.Host, primaries: map[uuid.UUID]*guarded{}}
	never := uuid.New()
	if err := d.mayStart(never, "new"); err != nil {
		t.Errorf("a guest that was never protected: %v", err)
	}
	for _, c := range []struct {
		role  lease.Role
		phase lease.Phase
		may   bool
	}{
		{lease.Primary, lease.Copying, true}, // the copy never was whole
		{lease.Primary, lease.Protecting, false},
		{lease.Primary, lease.HandedOver, false},
		{lease.Primary, lease.Unprotected, true},
		{lease.Primary, lease.Ended, true},
		{lease.Secondary, lease.Copying, false},
		{lease.Secondary, lease.Protecting, false},
		{lease.Secondary, lease.Gone, false},
		{lease.Secondary, lease.Running, true},
		{lease.Secondary, lease.Ended, true},
	} {
		rec := lease.Record{Guest: uuid.New(), Role: c.role, Generation: 3, Phase: c.phase}
		if err := d.host.Records.Persist(rec); err != nil {
			t.Fatal(err)
		}
		if err := d.mayStart(rec.Guest, "web"); (err == nil) != c.may {
			t.Errorf("%s, %s: %v", c.role, c.phase, err)
		}
	}
}

// TestProtectNeedsAnEnd: what is recorded as protected, and has no session, is not
// protected anew: the session would find no connection, and have the peer fenced.
func TestProtectNeedsAnEnd(t *testing.T) {
	for _, phase := range []lease.Phase{lease.Protecting, lease.HandedOver} {
		dom := hosttest.New(t, uuid.New(), "web", false, kemariop.RoleNone)
		d := &Daemon{host: dom.Host, primaries: map[uuid.UUID]*guarded{}}
		rec := lease.Record{Guest: uuid.New(), Role: lease.Primary, Generation: 3, Phase: phase}
		if err := d.host.Records.Persist(rec); err != nil {
			t.Fatal(err)
		}
		policy := host.Policy{Name: "web", Peer: "kemari:unix:/run/peer"}
		if _, err := d.start(rec.Guest, hosttest.DomID, policy, false, nil); err == nil || !strings.Contains(err.Error(), "generation 3") {
			t.Errorf("%s: %v", phase, err)
		}
	}
}

// TestFenceKnowsOnePeer: to have fenced one host proves nothing about another.
func TestFenceKnowsOnePeer(t *testing.T) {
	d := &Daemon{host: &host.Host{Config: config.Default()}}
	var err error
	if d.host.Config.Peer, err = config.ParseURI("kemari:tcp:b:7070"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		peer  string
		fence []string
		may   bool
	}{
		{"", nil, false},
		{"kemari:tcp:b:7070", nil, true},
		{"kemari:tcp:c:7070", nil, true}, // the operator will be asked
		{"kemari:tcp:b:7070", []string{"/usr/sbin/fence-b"}, true},
		{"kemari:tcp:c:7070", []string{"/usr/sbin/fence-b"}, false},
	} {
		d.host.Config.Fence = c.fence
		if err := d.mayPeer(c.peer); (err == nil) != c.may {
			t.Errorf("peer %q, fence command %v: %v", c.peer, c.fence, err)
		}
	}
}
