// SPDX-License-Identifier: Apache-2.0

package secondary

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/uuid"
	"github.com/kemari-ft/kemari/toolstack/lease"
	"github.com/kemari-ft/kemari/toolstack/secondary/hosttest"
	"github.com/kemari-ft/kemari/xen/kemariop"
)

// TestOnlyShellsAreDestroyed: a guest that was activated and has its shell's
// name still, or was interrupted on the way, is no shell.
func TestOnlyShellsAreDestroyed(t *testing.T) {
	const none, secondary, primary = kemariop.RoleNone, kemariop.RoleSecondary, kemariop.RolePrimary
	for _, tc := range []struct {
		what    string
		name    string
		paused  bool
		role    kemariop.Role
		host    lease.Role
		phase   lease.Phase
		destroy bool
	}{
		{"a shell", "web--kemari", true, secondary, lease.Secondary, lease.Protecting, true},
		{"one that somebody has unpaused", "web--kemari", false, secondary, lease.Secondary, lease.Protecting, true},
		{"one of an ended generation", "web--kemari", true, secondary, lease.Secondary, lease.Gone, true},
		{"one half made", "web--kemari", true, none, lease.Secondary, lease.Copying, true},
		{"one without a record", "web--kemari", true, secondary, "", "", true},
		{"the guest", "web", false, none, lease.Secondary, lease.Running, false},
		{"the guest, not renamed", "web--kemari", false, none, lease.Secondary, lease.Running, false},
		{"the guest, not renamed, its record lost", "web--kemari", false, none, "", "", false},
		{"the guest, not renamed and paused by the operator", "web--kemari", true, none, lease.Secondary, lease.Running, false},
		{"the guest, not quite activated", "web--kemari", true, secondary, lease.Secondary, lease.Running, false},
		{"the guest, not renamed and protected", "web--kemari", false, primary, lease.Primary, lease.Protecting, false},
		{"the guest, not renamed, was protected, and is paused", "web--kemari", true, none, lease.Primary, lease.Unprotected, false},
	} {
		t.Run(tc.what, func(t *testing.T) {
			t.Parallel() // libxl has to be waited for
			guest := uuid.New()
			d := hosttest.New(t, guest, tc.name, tc.paused, tc.role)
			if tc.host != "" {
				if err := d.Host.Records.Persist(lease.Record{Guest: guest, Role: tc.host, Generation: 3, Phase: tc.phase}); err != nil {
					t.Fatal(err)
				}
			}
			r := &Receiver{cfg: Config{Host: d.Host, Guest: guest}, ctx: context.Background()}
			err := r.destroyShell()
			if d.Told(fmt.Sprintf("destroy %d", uint16(hosttest.DomID))) != tc.destroy {
				t.Errorf("destroyed: %t", !tc.destroy)
			}
			if (err == nil) != tc.destroy {
				t.Errorf("error %v", err)
			}
		})
	}
}
