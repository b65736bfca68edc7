// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestURIs(t *testing.T) {
	cred := &Credentials{}
	for _, uri := range []string{
		"kemari:tcp:xen2.example:7789", "kemari:tcp:[2001:db8::1]:7789", "kemari:tcp:192.0.2.7:7789",
		"kemari:vsock:2:7789", "kemari:unix:/run/kemari/stream",
	} {
		tr, err := New(uri, cred)
		if err != nil {
			t.Errorf("%s: %v", uri, err)
		} else if tr.String() != uri {
			t.Errorf("%s became %s", uri, tr)
		}
	}
	for uri, why := range map[string]string{
		"tcp:host:1":                               "kemari:",
		"kemari:tcp:host":                          "port",
		"kemari:tcp::7789":                         "no host",
		"kemari:tcp:host:0":                        "port",
		"kemari:tcp:host:65536":                    "port",
		"kemari:vsock:two:7789":                    "context id",
		"kemari:vsock:2":                           "port",
		"kemari:vsock:2:x":                         "port",
		"kemari:unix:stream":                       "absolute",
		"kemari:quic:host:7789":                    "not known",
		"kemari:unix:/" + strings.Repeat("x", 107): "107",
	} {
		if _, err := New(uri, cred); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: error %v does not mention %q", uri, err, why)
		}
	}
	if _, err := New("kemari:tcp:host:1", nil); err == nil || !strings.Contains(err.Error(), "kemari pair") {
		t.Errorf("TCP without certificates: %v", err)
	}
}

// pair makes two hosts' credentials, trusting each other.
func pair(t testing.TB) (a, b *Credentials) {
	dir := t.TempDir()
	for _, host := range []string{"a", "b"} {
		cert, key, err := CreateCertificate("host " + host)
		if err != nil {
			t.Fatal(err)
		}
		if err := SaveCertificate(filepath.Join(dir, host+".crt"), filepath.Join(dir, host+".key"), cert, key); err != nil {
			t.Fatal(err)
		}
	}
	load := func(own, peer string) *Credentials {
		c, err := LoadCredentials(filepath.Join(dir, own+".crt"), filepath.Join(dir, own+".key"), filepath.Join(dir, peer+".crt"))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if fi, err := os.Stat(filepath.Join(dir, "a.key")); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode of the key: %v, %v", fi.Mode(), err)
	}
	return load("a", "b"), load("b", "a")
}

// exchange sends a word each way.
func exchange(t *testing.T, dial Transport, l net.Listener) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			defer conn.Close()
			_, err = io.CopyN(conn, conn, 4)
		}
		done <- err
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	conn, err := dial.Dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	got := make([]byte, 4)
	_, werr := conn.Write([]byte("ping"))
	_, rerr := io.ReadFull(conn, got)
	if err := errors.Join(werr, rerr, <-done); err != nil || string(got) != "ping" {
		t.Fatalf("%v: %q, %v", dial, got, err)
	}
}

func listenTCP(t testing.TB, c *Credentials) (net.Listener, string) {
	l, err := (&tcp{address: "127.0.0.1:0", cred: c}).Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, l.Addr().String()
}

func TestTCP(t *testing.T) {
	a, b := pair(t)
	l, address := listenTCP(t, b)
	tr, err := New("kemari:tcp:"+address, a)
	if err != nil {
		t.Fatal(err)
	}
	exchange(t, tr, l)
}

// TestStrangers: neither side talks to one whose certificate it was not given.
func TestStrangers(t *testing.T) {
	a, b := pair(t)
	stranger, _ := pair(t)
	for name, c := range map[string]struct{ dial, listen *Credentials }{
		"stranger dials":   {stranger, b},
		"stranger listens": {a, stranger},
	} {
		l, address := listenTCP(t, c.listen)
		accepted := make(chan error, 1)
		go func() {
			conn, err := l.Accept()
			if err == nil {
				defer conn.Close()
				_, err = conn.Read(make([]byte, 1))
			}
			accepted <- err
		}()
		conn, err := (&tcp{address: address, cred: c.dial}).Dial(t.Context())
		if err == nil { // a TLS 1.3 client hears of the refusal at its first Read
			_, err = conn.Read(make([]byte, 1))
			conn.Close()
		}
		if aerr := <-accepted; err == nil || aerr == nil {
			t.Errorf("%s: %v, %v", name, err, aerr)
		}
		if name == "stranger listens" && !strings.Contains(err.Error(), "not one of this host's peers") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	a, b := pair(t)
	l, address := listenTCP(t, b)
	go func() {
		if conn, err := l.Accept(); err == nil {
			conn.Read(make([]byte, 1))
			conn.Close()
		}
	}()
	old := a.config()
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if conn, err := tls.Dial("tcp", address, old); err == nil {
		conn.Close()
		t.Error("TLS 1.2 was accepted")
	}
}

func TestTCPOptions(t *testing.T) {
	a, b := pair(t)
	l, address := listenTCP(t, b)
	accepted := make(chan net.Conn, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		conn.(*secured).Handshake()
		accepted <- conn
	}()
	conn, err := (&tcp{address: address, cred: a}).Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	other := <-accepted
	defer other.Close()
	for side, c := range map[string]net.Conn{"dialled": conn, "accepted": other} {
		raw, err := c.(*secured).below.Conn.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) {
			for _, o := range []struct {
				name             string
				level, opt, want int
			}{
				{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 150000},
				{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
				{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
				{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 5},
			} {
				if got, err := unix.GetsockoptInt(int(fd), o.level, o.opt); err != nil || got != o.want {
					t.Errorf("%s socket: %s is %d, %v, want %d", side, o.name, got, err, o.want)
				}
			}
		})
	}
}

func TestUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stream")
	tr, err := New("kemari:unix:"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tr.Listen()
	if err != nil {
		t.Fatal(err)
	}
	exchange(t, tr, l)
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode of the socket: %v, %v", fi.Mode(), err)
	}
	if _, err := tr.Listen(); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("the socket of a listener was taken: %v", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // as if it had been killed
	l.Close()
	if l, err = tr.Listen(); err != nil {
		t.Fatalf("a killed daemon's socket is in the way: %v", err)
	}
	defer l.Close()
	exchange(t, tr, l)
}

func TestVsock(t *testing.T) {
	const localCID = 1 // VMADDR_CID_LOCAL, vsock(7): needs the vsock_loopback module
	tr, err := New("kemari:vsock:1:47789", nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tr.Listen()
	if err != nil {
		t.Skipf("no vsock loopback (CID %d) on this machine: %v", localCID, err)
	}
	defer l.Close()
	exchange(t, tr, l)
}

// BenchmarkTLS is what the certificates cost: 500 pages and an answer.  Compare
// with BenchmarkRawSocket of package stream.
func BenchmarkTLS(b *testing.B) {
	one, two := pair(b)
	l, address := listenTCP(b, two)
	data := make([]byte, 500*4096)
	b.SetBytes(int64(len(data)))
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		to := make([]byte, len(data))
		for {
			if _, err := io.ReadFull(conn, to); err != nil {
				return
			}
			conn.Write([]byte{1})
		}
	}()
	conn, err := (&tcp{address: address, cred: one}).Dial(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	ack := make([]byte, 1)
	for b.Loop() {
		conn.Write(data)
		if _, err := io.ReadFull(conn, ack); err != nil {
			b.Fatal(err)
		}
	}
}
