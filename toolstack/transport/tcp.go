// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// userTimeout is how long the kernel keeps a connection whose data nobody
// acknowledges (TCP_USER_TIMEOUT, tcp(7)).  It ends connections to hosts that
// are gone; whether a host is gone is for the heartbeats to say, earlier.  A
// peer whose window stays closed counts as one that does not acknowledge, and a
// secondary reads nothing while it makes the shell, for which it has two minutes.
const userTimeout = 150 * time.Second

var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: time.Second, Count: 5}

type tcp struct {
	address string
	cred    *Credentials
}

func (t *tcp) String() string { return "kemari:tcp:" + t.address }

// Dial ends with the TLS handshake: what it returns is the right peer.
func (t *tcp) Dial(ctx context.Context) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: keepAlive, Control: setUserTimeout}
	raw, err := d.DialContext(ctx, "tcp", t.address)
	if err != nil {
		return nil, fmt.Errorf("connecting to %v: %w", t, err)
	}
	conn := secure(raw, tls.Client, t.cred.config())
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("connecting to %v: %w", t, err)
	}
	return conn, nil
}

// Listen returns connections whose TLS handshake happens with the first Read:
// set a deadline until the peer has said HELLO, or a stranger can keep the
// reader.
func (t *tcp) Listen() (net.Listener, error) {
	lc := net.ListenConfig{KeepAliveConfig: keepAlive, Control: setUserTimeout}
	l, err := lc.Listen(context.Background(), "tcp", t.address)
	if err != nil {
		return nil, fmt.Errorf("listening at %v: %w", t, err)
	}
	return &listener{l, t.cred.config()}, nil
}

// setUserTimeout also serves listeners: accepted sockets inherit the option.
// TCP_NODELAY is Go's default.
func setUserTimeout(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
	}); e != nil {
		return e
	}
	return err
}
