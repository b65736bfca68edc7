// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// probeInterval is how often the peer is asked on the second path. It is
// shorter than any heartbeat interval that matters, and a datagram is cheap.
const probeInterval = 200 * time.Millisecond

const probeLen = 16

// Second is the second heartbeat path: datagrams between the two daemons on
// another network.
//
// What it has to tell apart is the death of a host from that of its daemon
// (I9). A peer whose daemon lives echoes the probe; one without a daemon whose
// kernel lives refuses it, by an ICMP message. Both are answers.
type Second struct {
	server *net.UDPConn // answers the peer's probes
	client *net.UDPConn // connected, so that the kernel reports ICMP errors
	heard  atomic.Uint64
	stop   chan struct{}
}

// OpenSecond opens the path to a peer, whose probes come to the same port.
func OpenSecond(peer string) (*Second, error) {
	fail := func(err error) (*Second, error) {
		return nil, fmt.Errorf("second heartbeat path to %s: %w", peer, err)
	}
	addr, err := net.ResolveUDPAddr("udp", peer)
	if err != nil {
		return fail(err)
	}
	s := &Second{stop: make(chan struct{})}
	if s.server, err = net.ListenUDP("udp", &net.UDPAddr{Port: addr.Port}); err != nil {
		return fail(err)
	}
	if s.client, err = net.DialUDP("udp", nil, addr); err != nil {
		return fail(errors.Join(err, s.server.Close()))
	}
	go s.answer()
	go s.ask()
	return s, nil
}

// Close closes the path.
func (s *Second) Close() error {
	close(s.stop)
	return errors.Join(s.server.Close(), s.client.Close())
}

// Heard counts the answers so far: if it has grown, the peer's host lives.
func (s *Second) Heard() uint64 { return s.heard.Load() }

// answer echoes probes. Whatever else arrives is not answered, so that two
// daemons cannot keep each other busy.
func (s *Second) answer() {
	var b [probeLen + 1]byte
	for {
		n, from, err := s.server.ReadFromUDP(b[:])
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil && n == probeLen {
			_, _ = s.server.WriteToUDP(b[:n], from) // a lost answer is a lost datagram
		}
	}
}

func (s *Second) ask() {
	var probe, b [probeLen]byte
	for {
		rand.Read(probe[:])
		_, err := s.client.Write(probe[:])
		for err == nil {
			_ = s.client.SetReadDeadline(time.Now().Add(probeInterval))
			var n int
			if n, err = s.client.Read(b[:]); err == nil && bytes.Equal(b[:n], probe[:]) {
				s.heard.Add(1)
				break
			}
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			s.heard.Add(1)
		}
		select {
		case <-s.stop:
			return
		case <-time.After(probeInterval):
		}
	}
}
