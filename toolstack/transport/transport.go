// SPDX-License-Identifier: Apache-2.0

// Package transport carries the Kemari stream from host to host: over TCP,
// always with mutual TLS 1.3, over vsock, and over unix sockets.  What carries
// it is named by a URI, kemari:tcp:HOST:PORT, kemari:vsock:CID:PORT or
// kemari:unix:PATH, and looks the same behind Transport.
package transport

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
)

// Transport reaches, or is, one end of a stream.
type Transport interface {
	// Dial connects to the address.
	Dial(ctx context.Context) (net.Conn, error)
	// Listen waits for connections at the address.
	Listen() (net.Listener, error)
	// String is the URI.
	String() string
}

// New makes the transport that a URI names.  TCP needs credentials; the others
// do not leave the machine, or its hypervisor, and take none.
func New(uri string, cred *Credentials) (Transport, error) {
	bad := func(format string, args ...any) (Transport, error) {
		return nil, fmt.Errorf("transport %q: %s; use kemari:tcp:HOST:PORT, kemari:vsock:CID:PORT or kemari:unix:PATH", uri, fmt.Sprintf(format, args...))
	}
	rest, ok := strings.CutPrefix(uri, "kemari:")
	if !ok {
		return bad("does not begin with kemari:")
	}
	scheme, rest, _ := strings.Cut(rest, ":")
	switch scheme {
	case "tcp":
		host, port, err := net.SplitHostPort(rest)
		if err != nil {
			return bad("%v", err)
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return bad("port %q is not a number from 1 to 65535", port)
		}
		if host == "" {
			return bad("there is no host")
		}
		if cred == nil {
			return nil, fmt.Errorf("transport %q: TCP is used with certificates only; run kemari pair", uri)
		}
		return &tcp{address: net.JoinHostPort(host, port), cred: cred}, nil
	case "vsock":
		cid, port, _ := strings.Cut(rest, ":")
		c, err := strconv.ParseUint(cid, 10, 32)
		if err != nil {
			return bad("context id %q is not a number", cid)
		}
		p, err := strconv.ParseUint(port, 10, 32)
		if err != nil {
			return bad("port %q is not a number", port)
		}
		return &vsockTransport{cid: uint32(c), port: uint32(p)}, nil
	case "unix":
		// sun_path holds 108 octets with the terminating NUL, see unix(7).
		if !filepath.IsAbs(rest) || len(rest) > 107 {
			return bad("the path must be absolute and of at most 107 octets")
		}
		return &unixTransport{path: rest}, nil
	}
	return bad("%q is not known", scheme)
}
