// SPDX-License-Identifier: Apache-2.0

package xenbus

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/kemari-ft/kemari/xen/abi"
)

// The whole server, with its goroutines: it acts on what others write.
func TestRunFollowsTheStore(t *testing.T) {
	var log strings.Builder
	store := newMemStore(&log)
	calls := make(chan string, 16)
	s := NewServer(Config{
		Store:  store,
		Open:   func(Disk) (Device, error) { return &fakeDevice{log: new(strings.Builder), done: calls}, nil },
		Alive:  func(abi.DomID) bool { return true },
		Report: func(err error) { t.Error(err) },
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()

	id := ID{Dom: 3, Handle: 51728}
	expect := func(want string) {
		t.Helper()
		select {
		case got := <-calls:
			if got != want {
				t.Fatalf("the device is told to %s, want %s", got, want)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("the device is not told to %s", want)
		}
	}
	create := func() {
		for _, p := range []pair{
			{"frontend", id.frontend()}, {"params", "aio:/disk"}, {"mode", "w"},
			{"script", "block"}, {"online", "1"}, {"state", "1"},
		} {
			store.set(id.backend()+"/"+p.key, p.value)
		}
		for _, p := range []pair{{"ring-ref", "8"}, {"event-channel", "4"}, {"protocol", protocolABI}, {"state", "3"}} {
			store.set(id.frontend()+"/"+p.key, p.value)
		}
	}
	create()
	expect("connect")
	store.set(id.frontend()+"/state", "6")
	expect("disconnect")
	store.rm(id.backend())
	expect("close")
	create()
	expect("connect")
	cancel()
	expect("abandon")
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Run returned %v", err)
	}
}

func TestParseID(t *testing.T) {
	for path, want := range map[string]ID{
		Root + "/5/51712":       {5, 51712},
		Root + "/5/51712/state": {5, 51712},
	} {
		if got, ok := parseID(path); !ok || got != want {
			t.Errorf("parseID(%q) = %v, %v", path, got, ok)
		}
	}
	for _, path := range []string{
		"", "@releaseDomain", Root, Root + "/5", Root + "/x/1", Root + "/5/", Root + "/-1/1",
		Root + "/40000/1", Root + "/5/4294967296", "/local/domain/0/backend/vbd/5/51712",
	} {
		if got, ok := parseID(path); ok {
			t.Errorf("parseID(%q) = %v, want none", path, got)
		}
	}
}

func TestOnlyRawTargetsAreServed(t *testing.T) {
	id := ID{Dom: 3, Handle: 51728}
	for key, value := range map[string]string{"params": "vhd:/disk", "frontend": "/local/domain/4/device/vbd/51728"} {
		store := newMemStore(new(strings.Builder))
		for _, p := range []pair{{"frontend", id.frontend()}, {"params", "aio:/disk"}, {"mode", "r"}, {"script", "block"}} {
			store.set(id.backend()+"/"+p.key, p.value)
		}
		if d, err := readDisk(store, id); err != nil || !d.ReadOnly || d.Target != "/disk" {
			t.Fatalf("readDisk = %+v, %v", d, err)
		}
		store.set(id.backend()+"/"+key, value)
		if _, err := readDisk(store, id); err == nil {
			t.Errorf("%s = %q is taken", key, value)
		}
	}
}

// FuzzFrontEnd writes what a hostile guest may write into its own directory.
func FuzzFrontEnd(f *testing.F) {
	f.Add("ring-ref=8\nevent-channel=12\nprotocol=x86_64-abi\nstate=3")
	f.Add("ring-page-order=4\nring-ref0=1\nevent-channel=-1\nprotocol=x86_64-abi\nstate=4")
	f.Add("multi-queue-num-queues=99999999999999999999\nprotocol=x86_64-abi\nstate=3")
	f.Add("multi-queue-num-queues=2\nqueue-0/ring-ref=8\nqueue-0/event-channel=1\nprotocol=x86_64-abi\nstate=3")
	f.Add("protocol=x86_32-abi\nstate=3\x00\nstate=08")
	f.Fuzz(func(t *testing.T, keys string) {
		st := newStage()
		id := ID{Dom: 5, Handle: 51712}
		for _, p := range []pair{
			{"frontend", id.frontend()}, {"params", "aio:/disk"}, {"mode", "w"},
			{"script", "block"}, {"online", "1"}, {"state", "1"},
		} {
			st.store.set(id.backend()+"/"+p.key, p.value)
		}
		st.settle()
		for _, p := range pairs(keys) {
			st.store.set(id.frontend()+"/"+p.key, p.value)
			st.settle()
		}
		ch, err := readChannels(st.store, id.frontend())
		if err != nil {
			return
		}
		for _, c := range ch {
			if c.Port == 0 || c.Port >= maxPort || len(c.Refs) == 0 || len(c.Refs) > 16 {
				t.Fatalf("accepted %+v", c)
			}
		}
	})
}
