// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/kemari-ft/kemari/tools/lab/nbd"
)

// standIn is a lab whose hosts are sleeping processes, with one LUN.
func standIn(t *testing.T, names ...string) *Lab {
	t.Helper()
	lun, err := nbd.Create(filepath.Join(t.TempDir(), "lun"), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	l := &Lab{ctx: t.Context(), hosts: map[string]*Host{}, luns: map[string]*nbd.LUN{"lun0": lun}}
	t.Cleanup(func() {
		l.Close()
		lun.Close()
	})
	for _, name := range names {
		h := &Host{Name: name, m: newMachine()}
		if err := h.m.start([]string{"sleep", "1000"}, t.TempDir(), filepath.Join(t.TempDir(), "log")); err != nil {
			t.Fatal(err)
		}
		l.hosts[name] = h
	}
	return l
}

// controller connects to a host's fence port as lab-fence does.
func controller(t *testing.T, l *Lab, by string) (ask func(string) string) {
	near, far := net.Pipe()
	go l.serveFence(by, far)
	t.Cleanup(func() { near.Close() })
	r := bufio.NewReader(near)
	return func(line string) string {
		t.Helper()
		if _, err := near.Write([]byte(line + "\n")); err != nil {
			t.Fatal(err)
		}
		answer, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
}

func TestFencing(t *testing.T) {
	l := standIn(t, "a", "b")
	ask := controller(t, l, "b")
	for _, c := range []struct{ request, want string }{
		{"status a", "ok on\n"},
		{"off x", "error there is no host \"x\"\n"},
		{"burn a", "error unknown request \"burn\"\n"},
	} {
		if got := ask(c.request); got != c.want {
			t.Errorf("%s: answered %q, want %q", c.request, got, c.want)
		}
	}
	l.OnFence(func(by, victim string) error {
		if by != "b" || victim != "a" {
			t.Errorf("asked about %s fencing %s", by, victim)
		}
		return errors.New("cable pulled")
	})
	if got := ask("off a"); got != "error cable pulled\n" {
		t.Errorf("a refused fence was answered %q", got)
	}
	if l.Host("a").isDead() {
		t.Fatal("a refused fence killed the host")
	}
	l.OnFence(nil)
	if got := ask("off a"); got != "ok\n" {
		t.Errorf("fencing was answered %q", got)
	}
	if !l.Host("a").isDead() || l.Host("b").isDead() {
		t.Error("after fencing a, a lives or b does not")
	}
	if got := ask("status a") + ask("off a"); got != "ok off\nok\n" {
		t.Errorf("a fenced host is answered for with %q", got)
	}
}

// TestFenceWaitsForTheDisk: a write that host a's death left under way may
// still land, so the fence must not be answered before it has.
func TestFenceWaitsForTheDisk(t *testing.T) {
	l := standIn(t, "a", "b")
	lun := l.LUN("lun0")
	hold := lun.Add(&nbd.Rule{Match: nbd.Match{Host: "a"}, Hold: true})
	near, far := net.Pipe()
	go lun.ServeConn(far)
	// The oldest of NBD's handshakes, then a write of one octet at 0.
	if _, err := io.ReadFull(near, make([]byte, 18)); err != nil {
		t.Fatal(err)
	}
	near.Write([]byte("\x00\x00\x00\x03IHAVEOPT\x00\x00\x00\x01\x00\x00\x00\x01a"))
	if _, err := io.ReadFull(near, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	write := binary.BigEndian.AppendUint32(nil, 0x25609513)
	write = append(write, 0, 0, 0, 1)
	write = append(write, make([]byte, 16)...)
	near.Write(append(write, 0, 0, 0, 1, 'x'))
	if err := hold.Taken(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	near.Close()

	ask := controller(t, l, "b")
	answered := make(chan string, 1)
	go func() { answered <- ask("off a") }()
	select {
	case got := <-answered:
		t.Fatalf("answered %q while a write of the dead host was under way", got)
	case <-time.After(100 * time.Millisecond):
	}
	hold.Release()
	if got := <-answered; got != "ok\n" {
		t.Errorf("answered %q", got)
	}
	if e := lun.Log()[0]; e.Landed != 1 {
		t.Errorf("the write did not land before the answer: %+v", e)
	}
}
