// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"net"
	"path"
	"strconv"
	"strings"
)

// URI names the other end of a replication link.
type URI struct {
	Transport string // tcp, vsock or unix
	Address   string // HOST:PORT, CID:PORT or an absolute path
}

func (u URI) String() string {
	if u.Transport == "" {
		return ""
	}
	return "kemari:" + u.Transport + ":" + u.Address
}

const uriForms = `"kemari:tcp:HOST:PORT", "kemari:vsock:CID:PORT" or "kemari:unix:/PATH"`

// ParseURI parses a URI.
func ParseURI(s string) (URI, error) {
	scheme, rest, _ := strings.Cut(s, ":")
	transport, addr, ok := strings.Cut(rest, ":")
	bad := func(why string) (URI, error) {
		return URI{}, fmt.Errorf("%.100q: %s; allowed: %s", s, why, uriForms)
	}
	if scheme != "kemari" || !ok {
		return bad("not a URI of Kemari")
	}
	switch transport {
	case "tcp":
		if err := checkHostPort(addr); err != nil {
			return bad(err.Error())
		}
	case "vsock":
		cid, port, _ := strings.Cut(addr, ":")
		if _, err := strconv.ParseUint(cid, 10, 32); err != nil {
			return bad("CID is not a number")
		}
		if _, err := strconv.ParseUint(port, 10, 32); err != nil {
			return bad("port is not a number")
		}
	case "unix":
		if !path.IsAbs(addr) || path.Clean(addr) != addr || strings.ContainsRune(addr, 0) {
			return bad("path is not absolute and clean")
		}
	default:
		return bad("unknown transport")
	}
	return URI{transport, addr}, nil
}

func checkHostPort(s string) error {
	host, port, err := net.SplitHostPort(s)
	switch n, perr := strconv.ParseUint(port, 10, 16); {
	case err != nil:
		return fmt.Errorf("%.100q is not HOST:PORT", s)
	case host == "" || strings.ContainsAny(host, " /\\\"'\x00\n\t"):
		return fmt.Errorf("%.100q has no valid host", s)
	case perr != nil || n == 0:
		return fmt.Errorf("port %.20q is not a number from 1 to 65535", port)
	}
	return nil
}
