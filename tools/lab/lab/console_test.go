// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kemari-ft/kemari/tools/lab/channel"
)

func console(t *testing.T) (*Console, net.Conn) {
	t.Helper()
	near, far := net.Pipe()
	c, err := newConsole("a", near, filepath.Join(t.TempDir(), "console.log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	return c, far
}

func TestWaitFor(t *testing.T) {
	c, port := console(t)
	go func() {
		for _, part := range []string{"boot", "ing 1\nbooting", " 2\n", "login:"} {
			port.Write([]byte(part))
		}
	}()
	m, end, err := c.WaitFor(t.Context(), 0, `booting (\d)`)
	if err != nil || m[1] != "1" {
		t.Fatalf("first match %q, %v", m, err)
	}
	if m, _, err = c.WaitFor(t.Context(), end, `booting (\d)`); err != nil || m[1] != "2" {
		t.Fatalf("match after the first %q, %v", m, err)
	}
	if _, _, err := c.WaitFor(t.Context(), 0, "login:"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, _, err := c.WaitFor(ctx, 0, "never"); err == nil || !strings.Contains(err.Error(), "login:") {
		t.Errorf("error %v, want one that shows the last lines", err)
	}
	port.Close()
	if _, _, err := c.WaitFor(t.Context(), 0, "never"); err == nil || !strings.Contains(err.Error(), "died") {
		t.Errorf("error %v, want that the host died", err)
	}
}

// TestDebugKeys plays Xen's side of the serial port: three Ctrl-A switch the
// input between dom0, Xen and a guest.
func TestDebugKeys(t *testing.T) {
	c, port := console(t)
	var typed bytes.Buffer
	done := make(chan struct{})
	go func() {
		defer close(done)
		receivers := []string{"DOM0", "DOM1", "Xen"}
		at, escapes := 0, 0
		buf := make([]byte, 16)
		for {
			n, err := port.Read(buf)
			if err != nil {
				return
			}
			for _, b := range buf[:n] {
				switch {
				case b == 1:
					if escapes++; escapes == 3 {
						escapes = 0
						at = (at + 1) % len(receivers)
						port.Write([]byte("(XEN) *** Serial input to " + receivers[at] + " (type 'CTRL-a' three times)\n"))
					}
				case receivers[at] == "Xen":
					port.Write([]byte("(XEN) '" + string(b) + "' pressed\n"))
				default:
					typed.WriteByte(b)
				}
			}
		}
	}()
	out, err := c.DebugKeys(t.Context(), "qr")
	if err != nil || !strings.Contains(out, "'q' pressed") || !strings.Contains(out, "'r' pressed") {
		t.Errorf("keys printed %q, %v", out, err)
	}
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	port.Close()
	<-done
	if typed.String() != "x" {
		t.Errorf("dom0 got %q, want the input that followed", &typed)
	}
}

func TestCrashIsNoticed(t *testing.T) {
	c, port := console(t)
	h := &Host{Name: "a", console: c}
	noticed := make(chan bool)
	go func() { noticed <- h.watchForCrash() }()
	for _, line := range []string{
		"(d1) [    6.4] Kernel panic - not syncing: a guest's own affair\n",
		"(XEN) \n(XEN) ****************************************\n(XEN) Pan", "ic on CPU 0:\n", "(XEN) Assertion 'x' failed\n",
	} {
		port.Write([]byte(line))
	}
	if !<-noticed {
		t.Fatal("a crash passed unnoticed")
	}
	err := h.explain(channel.ErrClosed)
	if !errors.Is(err, channel.ErrClosed) || !strings.Contains(err.Error(), "Assertion 'x' failed") || strings.Contains(err.Error(), "guest") {
		t.Errorf("explained as %v", err)
	}
}
