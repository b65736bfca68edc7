// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"testing"

	"github.com/google/uuid"
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
