// SPDX-License-Identifier: Apache-2.0

// Package ether is an Ethernet switch in user space. QEMU's network cards plug
// into it through -netdev stream; each connection between two ports can lose,
// delay or drop frames, and everything can be captured.
package ether

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"
)

// MaxFrame bounds a frame. QEMU passes segmentation offload on, and such a
// frame holds up to 64 KiB of payload.
const MaxFrame = 64<<10 + 128

// A MAC is a hardware address.
type MAC [6]byte

func (m MAC) group() bool { return m[0]&1 != 0 }

// An Impairment is what befalls frames from one port to another.
type Impairment struct {
	Down  bool          // nothing passes
	Delay time.Duration // added to each frame; the order stays
	Loss  float64       // probability that a frame is lost
	Short int           // if not 0, frames of more octets are lost
}

type path struct{ from, to string }

// A Network is one switch with its ports.
type Network struct {
	mu       sync.Mutex
	ports    []*Port             // protected by mu
	learned  map[MAC]*Port       // protected by mu; who sent from that address last
	impaired map[path]Impairment // protected by mu
	captures []*capture          // protected by mu
}

// New returns a switch without ports.
func New() *Network {
	return &Network{learned: map[MAC]*Port{}, impaired: map[path]Impairment{}}
}

// A Port is one plug. Several ports may have the same name, as the cards of a
// host before and after a reboot.
type Port struct {
	n    *Network
	name string
	out  *outbox
}

// Plug connects a card that speaks QEMU's stream framing: a 32-bit big-endian
// length before each frame. See net/stream.c of QEMU. It returns at once; the
// port lives until conn ends.
func (n *Network) Plug(name string, conn io.ReadWriteCloser) *Port {
	p := n.add(name)
	go func() {
		_ = p.serveOut(conn) // the reader notices the same end
	}()
	go func() {
		_ = p.serveIn(conn) // QEMU's death ends the port, which is all there is to say
		conn.Close()
		p.Unplug()
	}()
	return p
}

// Join connects the caller itself, which then uses Send and Receive.
func (n *Network) Join(name string) *Port { return n.add(name) }

func (n *Network) add(name string) *Port {
	p := &Port{n: n, name: name, out: newOutbox()}
	n.mu.Lock()
	n.ports = append(n.ports, p)
	n.mu.Unlock()
	return p
}

// Unplug removes the port; the switch forgets what it learned there.
func (p *Port) Unplug() {
	n := p.n
	n.mu.Lock()
	for i, q := range n.ports {
		if q == p {
			n.ports = append(n.ports[:i:i], n.ports[i+1:]...)
			break
		}
	}
	for mac, q := range n.learned {
		if q == p {
			delete(n.learned, mac)
		}
	}
	n.mu.Unlock()
	p.out.close()
}

func (p *Port) serveIn(r io.Reader) error {
	for {
		frame, err := readFrame(r)
		if err != nil {
			return err
		}
		p.Send(frame)
	}
}

func readFrame(r io.Reader) ([]byte, error) {
	var h [4]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(h[:])
	if n > MaxFrame {
		return nil, fmt.Errorf("ether: frame of %d octets, the limit is %d", n, MaxFrame)
	}
	frame := make([]byte, n)
	if _, err := io.ReadFull(r, frame); err != nil {
		return nil, err
	}
	return frame, nil
}

func (p *Port) serveOut(w io.Writer) error {
	var buf []byte
	for {
		frame, err := p.Receive()
		if err != nil {
			return err
		}
		buf = binary.BigEndian.AppendUint32(buf[:0], uint32(len(frame)))
		buf = append(buf, frame...)
		if _, err := w.Write(buf); err != nil {
			return err
		}
	}
}

// Send puts a frame onto the wire. The switch keeps the slice.
func (p *Port) Send(frame []byte) {
	if len(frame) < 14 {
		return // shorter than its header: a runt
	}
	now := time.Now()
	dst, src := MAC(frame[0:6]), MAC(frame[6:12])
	n := p.n
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.captures {
		c.write(now, frame)
	}
	if !src.group() {
		n.learned[src] = p
	}
	if q := n.learned[dst]; q != nil && !dst.group() {
		if q != p {
			n.pass(p, q, frame, now)
		}
		return
	}
	for _, q := range n.ports {
		if q != p {
			n.pass(p, q, frame, now)
		}
	}
}

// pass runs under n.mu.
func (n *Network) pass(p, q *Port, frame []byte, now time.Time) {
	imp := n.impaired[path{p.name, q.name}]
	if imp.Down || imp.Loss > 0 && rand.Float64() < imp.Loss || imp.Short > 0 && len(frame) > imp.Short {
		return
	}
	q.out.put(frame, now.Add(imp.Delay))
}

// Receive returns the next frame for the port. It ends with io.EOF when the
// port is unplugged.
func (p *Port) Receive() ([]byte, error) { return p.out.take() }

// Impair sets what befalls frames from one name to another, in this direction
// only. The zero Impairment is a good cable.
func (n *Network) Impair(from, to string, imp Impairment) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.impaired[path{from, to}] = imp
}

// Partition cuts the path between two names in both directions.
func (n *Network) Partition(a, b string) {
	n.Impair(a, b, Impairment{Down: true})
	n.Impair(b, a, Impairment{Down: true})
}

// Heal removes all impairments.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.impaired)
}
