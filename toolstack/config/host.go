// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"net"
	"os"
	"time"

	"github.com/kemari-ft/kemari/toolstack/xlcfg"
)

// File is where the configuration of a host is looked for.
const File = "/etc/xen/kemari.conf"

// Host is the content of kemari.conf.
type Host struct {
	Peer   URI // default peer of this host's guests; zero: each names its own
	Listen URI // where this host takes others' guests; zero: it takes none

	// Cert and Key are this host's, PeerCert is the one certificate that
	// the other end of a TCP link has to show.
	Cert, Key, PeerCert string

	// A host counts as silent when HeartbeatMisses heartbeats in a row did
	// not arrive, on the replication link and on the second path.
	HeartbeatInterval time.Duration
	HeartbeatMisses   int
	HeartbeatSecond   string // HOST:PORT of the peer on the second path, or ""

	// Fence powers the peer off, and succeeds only when that is certain.
	// Without it nothing is activated on this host but by the operator.
	Fence []string

	DirtyPages int           // entries of one half of the dirty list
	DetachWait time.Duration // see kemari.conf(5), detach_wait_ms
}

// Default is the configuration of a host whose file is empty.
func Default() *Host {
	return &Host{
		Cert:              "/etc/xen/kemari/cert.pem",
		Key:               "/etc/xen/kemari/key.pem",
		PeerCert:          "/etc/xen/kemari/peer.pem",
		HeartbeatInterval: 500 * time.Millisecond,
		HeartbeatMisses:   3,
		DirtyPages:        32768,
		DetachWait:        10 * time.Second,
	}
}

// LoadHost reads a kemari.conf.  A file that does not exist is an empty one.
func LoadHost(name string) (*Host, error) {
	src, err := os.ReadFile(name)
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	return ParseHost(name, src)
}

// ParseHost reads the content of a kemari.conf.
func ParseHost(name string, src []byte) (*Host, error) {
	f, err := xlcfg.Parse(name, src)
	if err != nil {
		return nil, err
	}
	h := Default()
	keys := table{
		"peer":      setURI(&h.Peer),
		"listen":    setURI(&h.Listen),
		"cert":      setText(&h.Cert, absolute),
		"key":       setText(&h.Key, absolute),
		"peer_cert": setText(&h.PeerCert, absolute),

		"heartbeat_interval_ms": setNumber(50, 60_000, millis(&h.HeartbeatInterval)),
		"heartbeat_misses":      setNumber(2, 100, func(n int) { h.HeartbeatMisses = n }),
		"heartbeat_second":      setText(&h.HeartbeatSecond, checkHostPort),

		"fence_command": h.setFence,
		// The upper limit is the hypervisor's, KEMARI_DIRTY_MAX.
		"dirty_pages":    setNumber(1024, 1<<20, func(n int) { h.DirtyPages = n }),
		"detach_wait_ms": setNumber(0, 3_600_000, millis(&h.DetachWait)),
	}
	errs := keys.decode(f, func(string) bool { return true })
	errs = append(errs, h.contradictions(f)...)
	if len(errs) != 0 {
		return nil, errors.Join(errs...)
	}
	return h, nil
}

func (h *Host) setFence(v xlcfg.Value) error {
	args, ok := v.Strings()
	if !v.IsList || !ok || len(args) == 0 {
		return errors.New(`allowed: a list of strings, ["/path/of/program", "argument", ...]`)
	}
	if err := absolute(args[0]); err != nil {
		return err
	}
	h.Fence = args
	return nil
}

func (h *Host) contradictions(f *xlcfg.File) (errs []error) {
	line := func(key string) int {
		s, _ := f.Get(key)
		return s.Line
	}
	if h.Peer == h.Listen && h.Peer.Transport != "" {
		errs = append(errs, f.Errorf(line("peer"), "peer: %s is this host's own address (listen, line %d)", h.Peer, line("listen")))
	}
	if h.HeartbeatSecond != "" && h.Peer.Transport == "tcp" {
		first, _, _ := net.SplitHostPort(h.Peer.Address)
		second, _, _ := net.SplitHostPort(h.HeartbeatSecond)
		if first == second {
			errs = append(errs, f.Errorf(line("heartbeat_second"),
				"heartbeat_second: %s is the replication link (peer, line %d); a second path needs the peer's address on another network", second, line("peer")))
		}
	}
	return errs
}
