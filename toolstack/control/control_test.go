// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kemari-ft/kemari/toolstack/config"
)

func listen(t *testing.T, h Handler) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "control.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go Serve(l, h)
	return path
}

func TestAsk(t *testing.T) {
	path := listen(t, func(_ context.Context, r *Request, progress func(string)) Reply {
		if r.Op == OpProtect {
			progress("10% copied")
			return Reply{Error: "no room for " + r.Guest}
		}
		return Reply{DomID: 7}
	})
	var said []string
	_, err := Ask(path, Request{Op: OpProtect, Guest: "web"}, func(s string) { said = append(said, s) })
	if err == nil || err.Error() != "no room for web" {
		t.Errorf("the daemon's reason is lost: %v", err)
	}
	if len(said) != 1 || said[0] != "10% copied" {
		t.Errorf("progress %q", said)
	}
	r, err := Ask(path, Request{Op: OpPrepare, Name: "web", UUID: "x"}, nil)
	if err != nil || r.DomID != 7 {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestWhoeverAskedHasGone: a first copy does not wait for an operator who has
// pressed Ctrl-C.
func TestWhoeverAskedHasGone(t *testing.T) {
	gone := make(chan struct{})
	path := listen(t, func(ctx context.Context, _ *Request, _ func(string)) Reply {
		<-ctx.Done()
		close(gone)
		return Reply{}
	})
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte(`{"version":1,"op":"status"}` + "\n")); err != nil {
		t.Fatal(err)
	}
	c.Close()
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Error("the handler still waits")
	}
}

func TestNoDaemon(t *testing.T) {
	if _, err := Ask(filepath.Join(t.TempDir(), "none"), Request{Op: OpStatus}, nil); !errors.Is(err, ErrNoDaemon) {
		t.Errorf("%v", err)
	}
}

func TestListenTwice(t *testing.T) {
	path := listen(t, func(context.Context, *Request, func(string)) Reply { return Reply{} })
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "another kemarid") {
		t.Errorf("two daemons on one socket: %v", err)
	}
}

func TestParseRefuses(t *testing.T) {
	for line, want := range map[string]string{
		`{"version":2,"op":"status"}`:                                     "version 2",
		`{"op":"status"}`:                                                 "version 0",
		`{"version":1,"op":"explode"}`:                                    "not known",
		`{"version":1,"op":"protect"}`:                                    "no guest",
		`{"version":1,"op":"prepare","name":"web"}`:                       "UUID",
		`{"version":1,"op":"status","rm":"-rf"}`:                          "unknown field",
		`{"version":1,"op":"status"} {}`:                                  "readable",
		`{"version":1,"op":"protect","guest":"x","interval":9999999}`:     "allowed: 10ms to 1m0s",
		`{"version":1,"op":"protect","guest":"x","interval":-1}`:          "allowed: 10ms to 1m0s",
		`{"version":1,"op":"protect","guest":"x","interval":61000000000}`: "1m1s; allowed",
		`junk`: "readable",
	} {
		if _, err := Parse([]byte(line)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v does not mention %q", line, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"version":1,"op":"protect","guest":"web","peer":"kemari:tcp:b:1"}`))
	f.Add([]byte(`{"version":1}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := Parse(line)
		if err == nil && (r.Version != Version || r.Op == OpProtect && r.Guest == "" || r.Interval != 0 && (r.Interval < config.MinInterval || r.Interval > config.MaxInterval)) {
			t.Errorf("accepted %q as %+v", line, r)
		}
	})
}
