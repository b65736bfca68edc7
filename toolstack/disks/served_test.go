// SPDX-License-Identifier: Apache-2.0

package disks

import (
	"fmt"
	"maps"
	"testing"

	"github.com/kemari-ft/kemari/backend/xenbus"
	"github.com/kemari-ft/kemari/xen/abi"
)

// TestProtectedDisksOnly: once it is fixed which disks a guest has, no other one is
// served under any name, not even under that of a disk that it had.
func TestProtectedDisksOnly(t *testing.T) {
	end := func(handle uint32, state abi.XenbusState, refused bool, target string) backEnd {
		return backEnd{xenbus.ID{Dom: 7, Handle: handle}, state, refused, fixedDisk{fmt.Sprint("xvd", handle), target}}
	}
	disk := func(handle uint32, target string) *device {
		return &device{id: xenbus.ID{Dom: 7, Handle: handle}, target: target}
	}
	fixed := served([]backEnd{
		end(1, abi.XenbusConnected, false, "/dev/a"),
		end(2, abi.XenbusInitWait, false, "/dev/b"),
		end(3, abi.XenbusClosed, false, "/dev/c"), // its driver was unloaded
		end(4, abi.XenbusInitialising, false, "/dev/being-attached"),
		end(5, abi.XenbusInitWait, true, "/dev/refused"),
		end(6, abi.XenbusConnected, true, "/dev/refused-at-first"),
		end(7, abi.XenbusInitialising, false, "/dev/open"),
	}, []*device{disk(7, "/dev/open")})
	got := map[uint32]string{}
	for handle, d := range fixed {
		got[handle] = d.target
	}
	want := map[uint32]string{1: "/dev/a", 2: "/dev/b", 3: "/dev/c", 6: "/dev/refused-at-first", 7: "/dev/open"}
	if !maps.Equal(got, want) {
		t.Errorf("served: %v, want %v", got, want)
	}
	g := &Guest{}
	if err := g.add(disk(9, "/dev/x")); err != nil {
		t.Errorf("a guest that is not protected: %v", err)
	}
	g = &Guest{fixed: fixed}
	if err := g.add(disk(2, "/dev/b")); err != nil {
		t.Errorf("a disk that it has: %v", err)
	}
	for _, d := range []*device{disk(9, "/dev/x"), disk(2, "/dev/x"), disk(5, "/dev/refused")} {
		if g.add(d) == nil {
			t.Errorf("%+v was taken", d)
		}
	}
	if len(g.devs) != 1 {
		t.Errorf("%d devices, 1 was taken", len(g.devs))
	}
}
