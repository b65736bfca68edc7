// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"github.com/mdlayher/vsock"
)

type vsockTransport struct{ cid, port uint32 }

func (v *vsockTransport) String() string { return fmt.Sprintf("kemari:vsock:%d:%d", v.cid, v.port) }

func (v *vsockTransport) Dial(ctx context.Context) (net.Conn, error) {
	conn, err := vsock.DialContext(ctx, v.cid, v.port, nil)
	if err != nil {
		return nil, fmt.Errorf("connecting to %v: %w", v, err)
	}
	return conn, nil
}

func (v *vsockTransport) Listen() (net.Listener, error) {
	l, err := vsock.ListenContextID(v.cid, v.port, nil)
	if err != nil {
		return nil, fmt.Errorf("listening at %v: %w", v, err)
	}
	return l, nil
}

type unixTransport struct{ path string }

func (u *unixTransport) String() string { return "kemari:unix:" + u.path }

func (u *unixTransport) Dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", u.path)
	if err != nil {
		return nil, fmt.Errorf("connecting to %v: %w", u, err)
	}
	return conn, nil
}

// Listen takes the place of a socket that a killed daemon left behind, but not
// that of one which somebody listens at.
func (u *unixTransport) Listen() (net.Listener, error) {
	l, err := net.Listen("unix", u.path)
	if errors.Is(err, syscall.EADDRINUSE) {
		conn, dialErr := u.Dial(context.Background())
		if dialErr == nil {
			conn.Close()
		}
		if errors.Is(dialErr, syscall.ECONNREFUSED) {
			if err = os.Remove(u.path); err == nil {
				l, err = net.Listen("unix", u.path)
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("listening at %v: %w", u, err)
	}
	if err := os.Chmod(u.path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("listening at %v: %w", u, err)
	}
	return l, nil
}
