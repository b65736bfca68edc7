// SPDX-License-Identifier: Apache-2.0

package disks

import (
	"maps"
	"testing"

	"github.com/kemari-ft/kemari/backend/xenbus"
	"github.com/kemari-ft/kemari/xen/abi"
)

// TestProtectedDisksOnly: once it is fixed which disks a guest has, no other one is
// served under any name, not even under that of a disk that it had.
func TestProtectedDisksOnly(t *testing.T) {
	end := func(handle uint32, state abi.XenbusState, refused bool, target string) backEnd {
		return backEnd{xenbus.ID{Dom: 7, Handle: handle}, state, refused, target}
	}
	got := served([]backEnd{
		end(1, abi.XenbusConnected, false, "/dev/a"),
		end(2, abi.XenbusInitWait, false, "/dev/b"),
		end(3, abi.XenbusClosed, false, "/dev/c"), // its driver was unloaded
		end(4, abi.XenbusInitialising, false, "/dev/being-attached"),
		end(5, abi.XenbusInitWait, true, "/dev/refused"),
		end(6, abi.XenbusConnected, true, "/dev/refused-at-first"),
	})
	want := map[uint32]string{1: "/dev/a", 2: "/dev/b", 3: "/dev/c", 6: "/dev/refused-at-first"}
	if !maps.Equal(got, want) {
		t.Errorf("served: %v, want %v", got, want)
	}
	disk := func(handle uint32, target string) xenbus.Disk {
		return xenbus.Disk{ID: xenbus.ID{Dom: 7, Handle: handle}, Target: target}
	}
	g := &Guest{}
	if err := g.takes(disk(9, "/dev/x")); err != nil {
		t.Errorf("a guest that is not protected: %v", err)
	}
	g.fixed = got
	if err := g.takes(disk(2, "/dev/b")); err != nil {
		t.Errorf("a disk that it has: %v", err)
	}
	for _, d := range []xenbus.Disk{disk(9, "/dev/x"), disk(2, "/dev/x"), disk(5, "/dev/refused")} {
		if g.takes(d) == nil {
			t.Errorf("%+v was taken", d)
		}
	}
}
