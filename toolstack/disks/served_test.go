// SPDX-License-Identifier: Apache-2.0

package disks

import (
	"fmt"
	"maps"
	"testing"

	"github.com/kemari-ft/kemari/backend/xenbus"
	"github.com/kemari-ft/kemari/toolstack/shell/xlstream"
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

// TestDetachedDiskStaysAway: the nodes of a disk that was refused under the name of a
// detached one do not bring that back on the other host, to be written to twice.
func TestDetachedDiskStaysAway(t *testing.T) {
	disks := []xlstream.Disk{{Vdev: "xvda", Path: "/dev/a", Writable: true}, {Vdev: "xvdb", Path: "/dev/b", Writable: true}}
	for _, c := range []struct {
		dev, params string
		want        bool
	}{
		{"xvdb", "aio:/dev/b", true},
		{"xvdb", "aio:/dev/other", false},
		{"xvdb", "aio:/dev/a", false},
		{"xvdc", "aio:/dev/b", false},
		{"xvdb", "/dev/b", false},
	} {
		if d, ok := diskOf(map[string]string{"dev": c.dev, "params": c.params}, disks); ok != c.want || ok && d.Path != "/dev/b" {
			t.Errorf("%s with %s: %+v, %v; want %v", c.dev, c.params, d, ok, c.want)
		}
	}
}
