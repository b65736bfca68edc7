// SPDX-License-Identifier: Apache-2.0

package channel

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
)

// errGone is what a handler's output sees when the client left.
var errGone = errors.New("channel: the other side is gone")

// Serve answers the requests that arrive on rw until it ends, and returns
// after the last handler did. The end of the byte stream is no error.
func Serve(ctx context.Context, rw io.ReadWriter, h Handler) error {
	ctx, cancel := context.WithCancel(ctx)
	s := &server{c: &conn{rw: rw}, h: h, streams: map[uint32]*serverStream{}}
	if err := s.c.send(frame{kind: kindHello}); err != nil {
		cancel()
		return err
	}
	err := s.read(ctx)
	cancel()
	s.mu.Lock()
	for _, st := range s.streams {
		st.in.finish(io.ErrUnexpectedEOF)
		st.credit.fail(errGone)
	}
	s.mu.Unlock()
	s.wg.Wait()
	if err == io.EOF {
		return nil
	}
	return err
}

type server struct {
	c  *conn
	h  Handler
	wg sync.WaitGroup

	mu      sync.Mutex
	streams map[uint32]*serverStream // protected by mu
}

type serverStream struct {
	in     *queue
	credit *credit
	sig    chan syscall.Signal
}

func (s *server) read(ctx context.Context) error {
	for {
		f, err := readFrame(s.c.rw)
		if err != nil {
			return err
		}
		if f.kind == kindRequest {
			if err := s.open(ctx, f); err != nil {
				return err
			}
			continue
		}
		s.mu.Lock()
		st := s.streams[f.stream]
		s.mu.Unlock()
		if st == nil {
			continue // it ended while this frame was under way
		}
		switch f.kind {
		case kindStdin:
			err = st.in.push(f.kind, f.payload)
		case kindEOF:
			st.in.finish(io.EOF)
		case kindSignal:
			if len(f.payload) != 1 {
				return fmt.Errorf("channel: signal frame of %d octets", len(f.payload))
			}
			select {
			case st.sig <- syscall.Signal(f.payload[0]):
			default: // the handler has several to deliver already
			}
		case kindCredit:
			err = addCredit(st.credit, f)
		default:
			err = fmt.Errorf("channel: a client sent frame kind %d", f.kind)
		}
		if err != nil {
			return err
		}
	}
}

func addCredit(c *credit, f frame) error {
	if len(f.payload) != 4 {
		return fmt.Errorf("channel: credit frame of %d octets", len(f.payload))
	}
	n := binary.BigEndian.Uint32(f.payload)
	if n > window {
		return fmt.Errorf("channel: credit of %d octets, the window is %d", n, window)
	}
	c.add(int(n))
	return nil
}

func (s *server) open(ctx context.Context, f frame) error {
	var req Request
	if err := json.Unmarshal(f.payload, &req); err != nil {
		return fmt.Errorf("channel: request: %w", err)
	}
	st := &serverStream{in: newQueue(), credit: newCredit(), sig: make(chan syscall.Signal, 4)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams[f.stream] != nil || f.stream == 0 {
		return fmt.Errorf("channel: stream %d is in use", f.stream)
	}
	s.streams[f.stream] = st
	s.wg.Go(func() { s.handle(ctx, f.stream, st, req) })
	return nil
}

func (s *server) handle(ctx context.Context, id uint32, st *serverStream, req Request) {
	out := sender{s.c, id, st.credit}
	status := s.h.Handle(ctx, req, Stdio{
		In:  &queueReader{q: st.in, c: s.c, stream: id},
		Out: out.writer(kindStdout),
		Err: out.writer(kindStderr),
	}, st.sig)
	s.mu.Lock()
	delete(s.streams, id)
	s.mu.Unlock()
	st.credit.fail(errGone)
	st.in.finish(io.ErrClosedPipe)
	// A failure here is the byte stream's, which read reports too.
	_ = s.c.sendJSON(id, kindExit, status)
}

// queueReader reads a queue and gives the peer credit for what it consumed.
type queueReader struct {
	q      *queue
	c      *conn
	stream uint32
	rest   []byte
}

func (r *queueReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		c, err := r.q.pop()
		if err != nil {
			return 0, err
		}
		r.rest = c.data
		if err := sendCredit(r.c, r.stream, len(c.data)); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func sendCredit(c *conn, stream uint32, n int) error {
	return c.send(frame{stream, kindCredit, binary.BigEndian.AppendUint32(nil, uint32(n))})
}
