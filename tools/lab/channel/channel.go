// SPDX-License-Identifier: Apache-2.0

// Package channel runs commands and moves files over one byte stream: the
// virtio-serial port between the lab and the agent in a host's dom0, and the
// control socket between the lab and its command line.
//
// Several requests run at the same time. Each direction of each request has a
// window of credit, so that a command whose output nobody reads stops without
// stopping the others.
package channel

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"syscall"
)

// Op says what a Request wants.
type Op string

const (
	Exec Op = "exec" // run Argv
	Put  Op = "put"  // write standard input to Path, with Mode
	Get  Op = "get"  // write the content of Path to standard output
	Dial Op = "dial" // join the unix socket at Path with standard input and output
)

// A Request opens a stream.
type Request struct {
	Op   Op       `json:"op"`
	Host string   `json:"host,omitempty"` // used by the lab's control socket only
	Argv []string `json:"argv,omitempty"`
	Env  []string `json:"env,omitempty"` // added to the server's environment
	Dir  string   `json:"dir,omitempty"`
	Path string   `json:"path,omitempty"`
	Mode uint32   `json:"mode,omitempty"`
}

// A Status ends a stream.
type Status struct {
	Code   int    `json:"code"`             // exit status, -1 when Signal or Err is set
	Signal int    `json:"signal,omitempty"` // the signal that ended the command
	Err    string `json:"err,omitempty"`    // the request could not be carried out
	Mode   uint32 `json:"mode,omitempty"`   // of the file, for Get
}

// Check returns nil for a command that ended with status 0.
func (s Status) Check() error {
	switch {
	case s.Err != "":
		return fmt.Errorf("%s", s.Err)
	case s.Signal != 0:
		return fmt.Errorf("killed by signal %d (%v)", s.Signal, syscall.Signal(s.Signal))
	case s.Code != 0:
		return fmt.Errorf("exit status %d", s.Code)
	}
	return nil
}

// window is how many octets one side may send on a stream before the other
// side has consumed them.
const window = 256 << 10

// conn serialises frames onto the byte stream.
type conn struct {
	rw io.ReadWriter
	mu sync.Mutex // protects buf and the order of writes to rw
	// buf is reused: one write per frame, since QEMU's chardev passes each
	// write on by itself.
	buf []byte
}

func (c *conn) send(f frame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buf = appendFrame(c.buf[:0], f)
	_, err := c.rw.Write(c.buf)
	return err
}

func (c *conn) sendJSON(stream uint32, k kind, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) > MaxPayload {
		return fmt.Errorf("channel: request of %d octets, the limit is %d", len(b), MaxPayload)
	}
	return c.send(frame{stream: stream, kind: k, payload: b})
}

// sender writes the octets of one direction of a stream, within its credit.
type sender struct {
	c      *conn
	stream uint32
	credit *credit
}

func (s sender) writer(k kind) io.Writer { return kindWriter{s, k} }

type kindWriter struct {
	s sender
	k kind
}

func (w kindWriter) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n, err := w.s.credit.take(min(len(p)-done, MaxPayload))
		if err != nil {
			return done, err
		}
		if err := w.s.c.send(frame{w.s.stream, w.k, p[done : done+n]}); err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// credit counts what may still be sent.
type credit struct {
	mu   sync.Mutex
	cond sync.Cond
	n    int   // protected by mu
	err  error // protected by mu; set when the stream is over
}

func newCredit() *credit {
	c := &credit{n: window}
	c.cond.L = &c.mu
	return c
}

func (c *credit) take(want int) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.n == 0 && c.err == nil {
		c.cond.Wait()
	}
	if c.err != nil {
		return 0, c.err
	}
	n := min(want, c.n)
	c.n -= n
	return n, nil
}

func (c *credit) add(n int) {
	c.mu.Lock()
	c.n += n
	c.mu.Unlock()
	c.cond.Broadcast()
}

func (c *credit) fail(err error) {
	c.mu.Lock()
	if c.err == nil {
		c.err = err
	}
	c.mu.Unlock()
	c.cond.Broadcast()
}

// queue holds received octets until their reader wants them. Its length is
// bounded by the window the peer was given.
type queue struct {
	mu     sync.Mutex
	cond   sync.Cond
	chunks []chunk // protected by mu
	held   int     // octets in chunks; protected by mu
	err    error   // protected by mu; returned after the last chunk
}

type chunk struct {
	kind kind
	data []byte
}

func newQueue() *queue {
	q := &queue{}
	q.cond.L = &q.mu
	return q
}

// push returns an error when the peer sent more than it had credit for.
func (q *queue) push(k kind, data []byte) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.held+len(data) > window {
		return fmt.Errorf("channel: the peer overran its window of %d octets", window)
	}
	if q.err == nil && len(data) > 0 {
		q.chunks = append(q.chunks, chunk{k, data})
		q.held += len(data)
		q.cond.Signal()
	}
	return nil
}

func (q *queue) finish(err error) {
	q.mu.Lock()
	if q.err == nil {
		q.err = err
	}
	q.mu.Unlock()
	q.cond.Broadcast()
}

func (q *queue) pop() (chunk, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.chunks) == 0 && q.err == nil {
		q.cond.Wait()
	}
	if len(q.chunks) == 0 {
		return chunk{}, q.err
	}
	c := q.chunks[0]
	q.chunks = q.chunks[1:]
	q.held -= len(c.data)
	return c, nil
}

// Handler carries out requests on the server's side. Its context ends when
// the client is gone. Signals arrive on sig.
type Handler interface {
	Handle(ctx context.Context, req Request, io Stdio, sig <-chan syscall.Signal) Status
}

// Stdio are the three byte streams of a request.
type Stdio struct {
	In       io.Reader
	Out, Err io.Writer
}
