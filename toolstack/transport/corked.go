// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bufio"
	"crypto/tls"
	"net"
	"sync"
)

// Under TLS every record of at most 16 KiB is a write of its own, which is a
// system call and a packet, and that twice over on the other side. What a
// guest waits for goes out in pieces of this size instead.
const pieceSize = 256 << 10

// secured is a TLS connection that can be corked.
type secured struct {
	*tls.Conn
	below *corked
}

// Cork has what is written gathered, up to some hundred KiB, until Flush.
func (s *secured) Cork() { s.below.cork() }

// Flush writes what was gathered, and ends that.
func (s *secured) Flush() error { return s.below.flush() }

func secure(raw net.Conn, side func(net.Conn, *tls.Config) *tls.Conn, config *tls.Config) *secured {
	below := &corked{Conn: raw, in: bufio.NewReaderSize(raw, pieceSize)}
	return &secured{side(below, config), below}
}

// corked is what lies below TLS. A write that is gathered reports what the one
// before it came to; so does Flush, and no caller may rely on less.
type corked struct {
	net.Conn
	in *bufio.Reader // its caller's alone

	mu  sync.Mutex // orders writes; protects on and out
	on  bool
	out []byte
}

func (c *corked) Read(b []byte) (int, error) { return c.in.Read(b) }

func (c *corked) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.on {
		return c.Conn.Write(b)
	}
	if len(c.out)+len(b) > pieceSize {
		if err := c.push(); err != nil {
			return 0, err
		}
	}
	c.out = append(c.out, b...)
	return len(b), nil
}

func (c *corked) cork() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.on = true
}

func (c *corked) flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.on = false
	return c.push()
}

// push is called with c.mu held.
func (c *corked) push() error {
	if len(c.out) == 0 {
		return nil
	}
	_, err := c.Conn.Write(c.out)
	c.out = c.out[:0]
	return err
}

// listener makes TLS connections of those that it accepts.
type listener struct {
	net.Listener
	config *tls.Config
}

func (l *listener) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return secure(raw, tls.Server, l.config), nil
}
