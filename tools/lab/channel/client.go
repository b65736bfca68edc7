// SPDX-License-Identifier: Apache-2.0

package channel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

// ErrClosed reports that the byte stream ended: the host was cut, or its
// agent died.
var ErrClosed = errors.New("the command channel is closed")

// A Client sends requests. Its methods may be called at the same time.
type Client struct {
	c     *conn
	hello chan struct{} // closed when the server said hello
	done  chan struct{} // closed when the reader ended

	mu      sync.Mutex
	streams map[uint32]*clientStream // protected by mu
	next    uint32                   // protected by mu
	err     error                    // protected by mu; set before done is closed
}

type clientStream struct {
	out    *queue
	credit *credit
	status Status // valid once out returned io.EOF
}

// NewClient uses rw until it ends. Close rw to end the client.
func NewClient(rw io.ReadWriter) *Client {
	c := &Client{
		c:       &conn{rw: rw},
		hello:   make(chan struct{}),
		done:    make(chan struct{}),
		streams: map[uint32]*clientStream{},
	}
	go c.read()
	return c
}

// Ready waits until the server is there.
func (c *Client) Ready(ctx context.Context) error {
	select {
	case <-c.hello:
		return nil
	case <-c.done:
		return c.closedErr()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Done is closed when the byte stream has ended.
func (c *Client) Done() <-chan struct{} { return c.done }

func (c *Client) closedErr() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *Client) read() {
	err := c.readFrames()
	if err == io.EOF || errors.Is(err, net.ErrClosed) {
		err = ErrClosed
	} else {
		err = fmt.Errorf("%w: %w", ErrClosed, err)
	}
	c.mu.Lock()
	c.err = err
	for _, st := range c.streams {
		st.out.finish(err)
		st.credit.fail(err)
	}
	c.mu.Unlock()
	close(c.done)
}

func (c *Client) readFrames() error {
	greeted := false
	for {
		f, err := readFrame(c.c.rw)
		if err != nil {
			return err
		}
		if f.kind == kindHello {
			if greeted {
				return errors.New("channel: the server started again")
			}
			greeted = true
			close(c.hello)
			continue
		}
		c.mu.Lock()
		st := c.streams[f.stream]
		if f.kind == kindExit {
			delete(c.streams, f.stream)
		}
		c.mu.Unlock()
		if st == nil && f.kind == kindCredit {
			continue // for input the command left behind
		}
		if st == nil {
			return fmt.Errorf("channel: frame for stream %d, which is not open", f.stream)
		}
		switch f.kind {
		case kindStdout, kindStderr:
			err = st.out.push(f.kind, f.payload)
		case kindCredit:
			err = addCredit(st.credit, f)
		case kindExit:
			if err = json.Unmarshal(f.payload, &st.status); err == nil {
				st.credit.fail(io.ErrClosedPipe)
				st.out.finish(io.EOF)
			}
		default:
			err = fmt.Errorf("channel: a server sent frame kind %d", f.kind)
		}
		if err != nil {
			return err
		}
	}
}

// A Call is a request that is being carried out.
type Call struct {
	c  *Client
	id uint32
	st *clientStream
}

// Start sends a request whose input is in (nil for none).
func (c *Client) Start(req Request, in io.Reader) (*Call, error) {
	st := &clientStream{out: newQueue(), credit: newCredit()}
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return nil, c.err
	}
	c.next++
	call := &Call{c, c.next, st}
	c.streams[call.id] = st
	c.mu.Unlock()
	if err := c.c.sendJSON(call.id, kindRequest, req); err != nil {
		c.mu.Lock()
		delete(c.streams, call.id)
		c.mu.Unlock()
		return nil, err
	}
	go call.feed(in)
	return call, nil
}

func (call *Call) feed(in io.Reader) {
	if in != nil {
		s := sender{call.c.c, call.id, call.st.credit}
		// The command may end without reading its input; that is its business.
		_, _ = io.Copy(s.writer(kindStdin), in)
	}
	_ = call.c.c.send(frame{stream: call.id, kind: kindEOF})
}

// Signal sends a signal to the command.
func (call *Call) Signal(sig syscall.Signal) error {
	return call.c.c.send(frame{call.id, kindSignal, []byte{byte(sig)}})
}

// killGrace is how long a killed command may take to be reported dead.
const killGrace = 5 * time.Second

// Wait copies the output to out and errOut (nil discards) and returns when
// the command has ended. When ctx ends first the command is killed.
func (call *Call) Wait(ctx context.Context, out, errOut io.Writer) (Status, error) {
	stop := context.AfterFunc(ctx, func() {
		// If the kill cannot be sent, or has no effect, the wait ends all the same.
		_ = call.Signal(syscall.SIGKILL)
		time.AfterFunc(killGrace, func() { call.st.out.finish(context.Cause(ctx)) })
	})
	defer stop()
	for {
		ch, err := call.st.out.pop()
		if err != nil {
			if ctx.Err() != nil {
				return Status{Code: -1}, context.Cause(ctx)
			}
			if err == io.EOF {
				return call.st.status, nil
			}
			return Status{Code: -1}, err
		}
		w := out
		if ch.kind == kindStderr {
			w = errOut
		}
		if w != nil {
			if _, err := w.Write(ch.data); err != nil {
				_ = call.Signal(syscall.SIGKILL)
				return Status{Code: -1}, err
			}
		}
		// If this fails the reader ends too, and pop reports it.
		_ = sendCredit(call.c.c, call.id, len(ch.data))
	}
}

// Do sends a request and waits for its end.
func (c *Client) Do(ctx context.Context, req Request, in io.Reader, out, errOut io.Writer) (Status, error) {
	call, err := c.Start(req, in)
	if err != nil {
		return Status{Code: -1}, err
	}
	return call.Wait(ctx, out, errOut)
}

// Greeted tells whether the server was ever there.
func (c *Client) Greeted() bool {
	select {
	case <-c.hello:
		return true
	default:
		return false
	}
}
