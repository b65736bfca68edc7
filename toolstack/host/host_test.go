// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/kemari-ft/kemari/toolstack/lease"
)

func TestRecords(t *testing.T) {
	r := Records{Dir: filepath.Join(t.TempDir(), "kemari")}
	id := uuid.New()
	if rec, err := r.Load(id); err != nil || rec != (lease.Record{}) {
		t.Fatalf("a guest that was never protected: %+v, %v", rec, err)
	}
	want := lease.Record{Guest: id, Role: lease.Primary, Generation: 3, Phase: lease.Protecting}
	if err := r.Persist(want); err != nil {
		t.Fatal(err)
	}
	if rec, err := r.Load(id); err != nil || rec != want {
		t.Errorf("%+v, %v", rec, err)
	}
	if ids, err := r.Guests(); err != nil || len(ids) != 1 || ids[0] != id {
		t.Errorf("%v, %v", ids, err)
	}
	// A record of another guest, as a careless copy would leave, is no record.
	other := uuid.New()
	b, err := os.ReadFile(r.file(id, "record"))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.write(other, "record", b); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Load(other); err == nil {
		t.Error("the record of another guest was taken")
	}
}

func TestRecordsThatCannotBeWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := Records{Dir: file}
	err := r.Persist(lease.Record{Guest: uuid.New(), Role: lease.Primary, Generation: 1, Phase: lease.Copying})
	if !errors.Is(err, ErrPersist) {
		t.Errorf("%v", err)
	}
}

func TestPolicyOutlivesNothingButItsRemoval(t *testing.T) {
	r, id := Records{Dir: t.TempDir()}, uuid.New()
	if p, err := r.Policy(id); p != nil || err != nil {
		t.Fatal(p, err)
	}
	want := Policy{Name: "web", Peer: "kemari:tcp:b:7460", Interval: time.Second}
	if err := r.SetPolicy(id, want); err != nil {
		t.Fatal(err)
	}
	if p, err := r.Policy(id); err != nil || p == nil || *p != want {
		t.Errorf("%+v, %v", p, err)
	}
	for range 2 {
		if err := r.RemovePolicy(id); err != nil {
			t.Error(err)
		}
	}
	if p, err := r.Policy(id); p != nil || err != nil {
		t.Error(p, err)
	}
}

// TestSecondPathTellsDaemonFromHost: a kernel that refuses a probe is alive.
func TestSecondPathTellsDaemonFromHost(t *testing.T) {
	probe, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	addr := probe.LocalAddr().String()
	probe.Close()
	s, err := OpenSecond(addr) // its own server answers it
	if err != nil {
		t.Fatal(err)
	}
	defer s.client.Close()
	defer close(s.stop)
	grows := func(what string) {
		t.Helper()
		from := s.Heard()
		for end := time.Now().Add(10 * time.Second); s.Heard() < from+2; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("nothing heard from %s", what)
			}
		}
	}
	grows("a daemon")
	s.server.Close()
	grows("a host without a daemon")
}

func TestVendor(t *testing.T) {
	v, err := vendor([]byte("processor\t: 0\nvendor_id\t: AuthenticAMD\n"))
	if err != nil || v != "AuthenticAMD" {
		t.Error(v, err)
	}
	if _, err := vendor(nil); err == nil {
		t.Error("no vendor is no error")
	}
}
