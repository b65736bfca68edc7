// SPDX-License-Identifier: Apache-2.0

// Package link is one connection between two hosts, and the pulse on it.
package link

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kemari-ft/kemari/toolstack/stream"
)

// HelloTime is how long a peer may take to say HELLO.
const HelloTime = 10 * time.Second

// Conn is a connection with a stream in each direction.
type Conn struct {
	*stream.Writer
	conn  net.Conn
	heard atomic.Bool  // something has arrived since the last look
	spent atomic.Int64 // time in Write, ns
	close sync.Once

	// refused: what arrives from now on is thrown away, by Read or by linger,
	// which share it without any order.
	refused atomic.Bool
}

// New makes a Conn of a connection that has just been made.
func New(c net.Conn) *Conn {
	l := &Conn{conn: c}
	// Plain sockets are written to as they are, for the sake of writev.
	switch c.(type) {
	case *net.UnixConn:
		l.Writer = stream.NewWriter(c)
	default:
		l.Writer = stream.NewWriter(writer{l})
	}
	return l
}

type writer struct{ l *Conn }

func (w writer) Write(b []byte) (int, error) {
	start := time.Now()
	n, err := w.l.conn.Write(b)
	w.l.spent.Add(int64(time.Since(start)))
	return n, err
}

// Cork and Flush are for connections that can gather what is written, see
// stream.Corker; the others write at once.
func (w writer) Cork() {
	if c, ok := w.l.conn.(stream.Corker); ok {
		c.Cork()
	}
}

func (w writer) Flush() error {
	c, ok := w.l.conn.(stream.Corker)
	if !ok {
		return nil
	}
	start := time.Now()
	err := c.Flush()
	w.l.spent.Add(int64(time.Since(start)))
	return err
}

// Read reads from the connection, for a stream.Reader. When the peer was refused
// it ends with net.ErrClosed.
func (l *Conn) Read(b []byte) (int, error) {
	n, err := l.conn.Read(b)
	if l.refused.Load() {
		return 0, net.ErrClosed
	}
	if n > 0 {
		l.heard.Store(true)
	}
	return n, err
}

// Spent is the time that has been spent in writing.
func (l *Conn) Spent() time.Duration { return time.Duration(l.spent.Load()) }

// Expect bounds the time until the peer's HELLO, from now on.
func (l *Conn) Expect() error { return l.conn.SetReadDeadline(time.Now().Add(HelloTime)) }

// Trust takes that bound away.
func (l *Conn) Trust() error { return l.conn.SetReadDeadline(time.Time{}) }

// Peer names the other end.
func (l *Conn) Peer() string { return l.conn.RemoteAddr().String() }

// Close closes the connection. Blocked readers and writers return.
func (l *Conn) Close() {
	// A TLS connection says good-bye first, which a peer that is gone would
	// let wait; see crypto/tls.Conn.Close.
	l.close.Do(func() {
		_ = l.conn.SetDeadline(time.Now())
		_ = l.conn.Close()
	})
}

// Refuse tells the peer why it is refused, as far as that can be said, and closes
// the connection.
func (l *Conn) Refuse(r stream.Refuse) {
	r.Reasons = r.Reasons[:min(len(r.Reasons), stream.MaxReasons)]
	l.refused.Store(true)
	_ = l.conn.SetWriteDeadline(time.Now().Add(HelloTime))
	if err := l.Writer.Refuse(r); err == nil {
		l.linger()
	}
	l.Close()
}

// linger waits until the peer has hung up, so that data it had under way does
// not reset the connection before it has read what was said last.
func (l *Conn) linger() {
	if c, ok := l.conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
	_ = l.conn.SetReadDeadline(time.Now().Add(time.Second))
	var b [4096]byte
	for {
		if _, err := l.conn.Read(b[:]); err != nil {
			return
		}
	}
}

// Messages reads the stream until it ends, and hands each message to take,
// which returns when the message has been dealt with, or with false when
// nobody wants more.
func Messages(ctx context.Context, r *stream.Reader, take func(msg any) bool) error {
	for {
		msg, err := r.Next()
		if err != nil {
			return err
		}
		if ctx.Err() != nil || !take(msg) {
			return nil
		}
	}
}
