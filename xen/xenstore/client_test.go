// SPDX-License-Identifier: Apache-2.0

package xenstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kemari-ft/kemari/xen/abi"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestStore(t *testing.T) {
	_, c := newServer(t)
	must(t, c.Write("/local/domain/5/name", "guest\x00with nul"))
	v, err := c.Read("/local/domain/5/name")
	if err != nil || v != "guest\x00with nul" {
		t.Errorf("%q, %v", v, err)
	}
	must(t, c.Mkdir("/local/domain/5/data"))
	names, err := c.List("/local/domain/5")
	if err != nil || !slices.Equal(names, []string{"data", "name"}) {
		t.Errorf("%q, %v", names, err)
	}
	if names, err := c.List("/local/domain/5/data"); err != nil || len(names) != 0 {
		t.Errorf("empty directory: %q, %v", names, err)
	}
	must(t, c.Rm("/local/domain/5"))
	_, err = c.Read("/local/domain/5/name")
	for _, target := range []error{fs.ErrNotExist, ErrNotExist, syscall.ENOENT} {
		if !errors.Is(err, target) {
			t.Errorf("%v does not match %v", err, target)
		}
	}
	if !strings.Contains(err.Error(), "READ /local/domain/5/name") {
		t.Errorf("%q does not say what was tried", err)
	}
}

func TestBadRequestsAreNotSent(t *testing.T) {
	s, c := newServer(t)
	for _, path := range []string{"", "/a\x00b", "/" + strings.Repeat("x", abi.XenstoreAbsPathMax)} {
		if _, err := c.Read(path); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%.10q: %v", path, err)
		}
	}
	if err := c.Write("/a", strings.Repeat("x", 4094)); !errors.Is(err, syscall.E2BIG) {
		t.Errorf("4097 bytes: %v", err)
	}
	must(t, c.Write("/a", strings.Repeat("x", 4093)))
	if err := c.SetPerms("/a"); err == nil {
		t.Error("no permissions were accepted")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.requests) != 1 {
		t.Errorf("%d requests were sent", len(s.requests))
	}
}

func TestLargeDirectory(t *testing.T) {
	s, c := newServer(t)
	s.partSize, s.genBumps = 7, 2
	var want []string
	for i := range 40 {
		n := fmt.Sprintf("n%02d", i)
		want = append(want, n)
		s.nodes["/d"] = ""
		s.nodes["/d/"+n] = ""
	}
	got, err := c.List("/d")
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	s.nodes["/empty"] = ""
	if got, err := c.List("/empty"); err != nil || len(got) != 0 {
		t.Errorf("empty: %q, %v", got, err)
	}
	s.genBumps = 1 << 20
	if _, err := c.List("/d"); !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("a list that never rests: %v", err)
	}
}

func TestPerms(t *testing.T) {
	s, c := newServer(t)
	want := []Perm{{0, AccessNone}, {5, AccessRead}, {7, AccessBoth}}
	must(t, c.SetPerms("/a", want...))
	if got := s.perms["/a"]; got != "n0\x00r5\x00b7\x00" {
		t.Errorf("sent %q", got)
	}
	got, err := c.GetPerms("/a")
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	for _, p := range []string{"", "r", "x5", "r70000", "r-1"} {
		if _, err := ParsePerm(p); err == nil {
			t.Errorf("%q was accepted", p)
		}
	}
}

func TestTransactionRetries(t *testing.T) {
	s, c := newServer(t)
	must(t, c.Write("/n", "0"))
	runs := 0
	err := c.Transaction(func(tx *Tx) error {
		runs++
		v, err := tx.Read("/n")
		if err != nil {
			return err
		}
		if runs < 3 { // somebody else gets in the way
			must(t, c.Write("/n", v+"x"))
		}
		return tx.Write("/n", v+"y")
	})
	if err != nil || runs != 3 {
		t.Fatalf("%v after %d runs", err, runs)
	}
	if v, _ := c.Read("/n"); v != "0xxy" {
		t.Errorf("value %q", v)
	}
	broken := errors.New("broken")
	err = c.Transaction(func(tx *Tx) error {
		must(t, tx.Write("/n", "lost"))
		return broken
	})
	if err != broken {
		t.Errorf("got %v", err)
	}
	if v, _ := c.Read("/n"); v != "0xxy" {
		t.Errorf("an aborted transaction left %q", v)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.txs) != 0 {
		t.Error("a transaction is still open")
	}
}

func recv(t *testing.T, w *Watch) Event {
	t.Helper()
	select {
	case e, ok := <-w.C:
		if !ok {
			t.Fatal("the watch is closed")
		}
		return e
	case <-time.After(10 * time.Second):
		t.Fatal("no event")
	}
	return Event{}
}

func TestWatch(t *testing.T) {
	_, c := newServer(t)
	a, err := c.Watch("/a")
	must(t, err)
	b, err := c.Watch("/a") // the same path, another token
	must(t, err)
	if e := recv(t, a); e.Path != "/a" {
		t.Errorf("first event %+v", e)
	}
	recv(t, b)
	must(t, c.Write("/a/x", "1"))
	if e := recv(t, a); e.Path != "/a/x" {
		t.Errorf("event %+v", e)
	}
	recv(t, b)
	must(t, a.Close())
	must(t, a.Close())
	if _, ok := <-a.C; ok {
		t.Error("an event after Close")
	}
	must(t, c.Write("/a/y", "1"))
	if e := recv(t, b); e.Path != "/a/y" {
		t.Errorf("event %+v", e)
	}
}

// TestSlowReaderDelaysNobody leaves a watch unread while requests go on.
func TestSlowReaderDelaysNobody(t *testing.T) {
	_, c := newServer(t)
	slow, err := c.Watch("/a")
	must(t, err)
	const n = 2000
	for i := range n {
		must(t, c.Write("/a", fmt.Sprint(i)))
	}
	if p := slow.Pending(); p < n {
		t.Errorf("%d events are pending, want at least %d", p, n)
	}
	for range n + 1 {
		recv(t, slow)
	}
	must(t, c.Write("/a", "end"))
	recv(t, slow)
}

func TestConcurrentRequests(t *testing.T) {
	_, c := newServer(t)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			path := fmt.Sprintf("/c/%d", i)
			for j := range 50 {
				want := fmt.Sprint(i, j)
				if err := c.Write(path, want); err != nil {
					t.Error(err)
					return
				}
				if got, err := c.Read(path); err != nil || got != want {
					t.Errorf("%q, want %q, %v", got, want, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestControlAcceptsLongAnswers(t *testing.T) {
	s, c := newServer(t)
	long := strings.Repeat("watch D1: /a token\n", 10000)
	s.control = func(args []string) string {
		if !slices.Equal(args, []string{"watches", "x"}) {
			t.Errorf("arguments %q", args)
		}
		return long + "\x00"
	}
	got, err := c.Control("watches", "x")
	if err != nil || got != long {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestDomains(t *testing.T) {
	s, c := newServer(t)
	must(t, c.IntroduceDomain(5, 0xfeffc, 1))
	must(t, c.ReleaseDomain(5))
	if !slices.Equal(s.requests, []string{`INTRODUCE "5\x001044476\x001\x00"`, `RELEASE "5\x00"`}) {
		t.Errorf("sent %q", s.requests)
	}
	for dom, want := range map[abi.DomID]bool{5: true, 6: false} {
		if got, err := c.IsDomainIntroduced(dom); err != nil || got != want {
			t.Errorf("%s: %v, %v", dom, got, err)
		}
	}
	if p, err := c.DomainPath(7); err != nil || p != "/local/domain/7" {
		t.Errorf("%q, %v", p, err)
	}
}

func TestLostConnection(t *testing.T) {
	s, c := newServer(t)
	w, err := c.Watch("/a")
	must(t, err)
	recv(t, w)
	s.conn.Close()
	select {
	case <-c.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the client did not notice")
	}
	if _, ok := <-w.C; ok {
		t.Error("an event after the end")
	}
	if _, err := c.Read("/a"); err == nil || !strings.Contains(err.Error(), "connection lost") {
		t.Errorf("read: %v", err)
	}
	if c.Err() == nil {
		t.Error("no reason is given")
	}
	must(t, w.Close())
}

func TestAnswerToNoRequestEndsTheConnection(t *testing.T) {
	s, c := newServer(t)
	s.mu.Lock()
	s.send(abi.XSRead, 99, 0, "x")
	s.mu.Unlock()
	<-c.Done()
	if !strings.Contains(c.Err().Error(), "request 99") {
		t.Error(c.Err())
	}
}

func TestClose(t *testing.T) {
	_, c := newServer(t)
	must(t, c.Close())
	if err := c.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("second close: %v", err)
	}
	if _, err := c.Read("/a"); !errors.Is(err, os.ErrClosed) {
		t.Errorf("read: %v", err)
	}
	if _, err := c.Watch("/a"); !errors.Is(err, os.ErrClosed) {
		t.Errorf("watch: %v", err)
	}
}

func TestDialSaysWhatIsMissing(t *testing.T) {
	t.Setenv(envSocket, t.TempDir()+"/nothing")
	if _, err := Dial(""); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "xenstored") {
		t.Error(err)
	}
}
