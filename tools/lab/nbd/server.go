// SPDX-License-Identifier: Apache-2.0

// Package nbd is a disk array for tests: a LUN that several hosts open at the
// same time over the NBD protocol, that remembers every request, and that can
// hold, delay, fail or drop those it is told to.
//
// The name of the export that a client opens is the name of its host.
package nbd

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// A LUN is one disk. Its backing is a sparse file.
type LUN struct {
	f    *os.File
	size uint64

	mu     sync.Mutex
	log    []Event        // protected by mu; in order of arrival
	landed uint64         // protected by mu; how many requests changed the disk
	rules  []*Rule        // protected by mu
	busy   map[string]int // protected by mu; connections and counted requests per host
	idle   chan struct{}  // protected by mu; closed and replaced when a busy entry ends
}

// An Event is what became of a request.
type Event struct {
	Host    string
	Op      Op
	Offset  uint64
	Length  uint32
	FUA     bool
	Hash    [sha256.Size]byte // of the data of a write
	Arrived time.Time
	// Landed numbers the requests that changed the disk, in the order in which
	// they did; 0 for those that did not, or not yet.
	Landed   uint64
	Done     time.Time // when the answer was sent; zero while there is none
	Err      Errno     // of the answer
	Answered bool      // the answer was written to a connection that still stood
}

// Create makes an empty LUN of size octets at path.
func Create(path string, size uint64) (*LUN, error) {
	if size == 0 || size%blockSize != 0 {
		return nil, fmt.Errorf("nbd: a LUN of %d octets is not a number of %d-octet blocks", size, blockSize)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(int64(size)); err != nil {
		f.Close()
		return nil, err
	}
	return &LUN{f: f, size: size, busy: map[string]int{}, idle: make(chan struct{})}, nil
}

// Close closes the backing file.
func (l *LUN) Close() error { return l.f.Close() }

// Size is the size in octets.
func (l *LUN) Size() uint64 { return l.size }

// ReadAt reads what landed, past all rules and unlogged.
func (l *LUN) ReadAt(p []byte, off int64) (int, error) { return l.f.ReadAt(p, off) }

// WriteAt writes to the disk past all rules and unlogged: to prepare its
// content.
func (l *LUN) WriteAt(p []byte, off int64) (int, error) { return l.f.WriteAt(p, off) }

// Serve serves connections until the listener is closed.
func (l *LUN) Serve(listener net.Listener) error {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			// Whatever ends a connection, the client sees it end.
			_ = l.ServeConn(conn)
		}()
	}
}

// maxInFlight bounds the requests of one connection that are carried out at
// the same time; held ones count. QEMU sends at most 16 (MAX_NBD_REQUESTS in
// block/nbd.c), so that holding 16 requests of a host stops its disk.
const maxInFlight = 1024

// ServeConn serves one connection and closes it.
func (l *LUN) ServeConn(conn net.Conn) error {
	defer conn.Close()
	host, err := negotiate(conn, l.size)
	if err != nil {
		return err
	}
	l.enter(host)
	defer l.leave(host)
	c := &session{l: l, host: host, conn: conn, slots: make(chan struct{}, maxInFlight)}
	for {
		var h [requestLen]byte
		if _, err := io.ReadFull(conn, h[:]); err != nil {
			return err
		}
		r, err := parseRequest(h)
		if err != nil {
			return err
		}
		if r.op == Disconnect {
			return nil
		}
		var data []byte
		if r.op == Write {
			data = make([]byte, r.length)
			if _, err := io.ReadFull(conn, data); err != nil {
				return err // a torn write never lands
			}
		}
		c.slots <- struct{}{}
		c.begin(r, data)
	}
}

type session struct {
	l     *LUN
	host  string
	conn  net.Conn
	slots chan struct{}
	wmu   sync.Mutex // orders answers
}

// begin notes a request and carries it out in the background.
func (s *session) begin(r request, data []byte) {
	e := Event{Host: s.host, Op: r.op, Offset: r.offset, Length: r.length, FUA: r.flags&flagFUA != 0, Arrived: time.Now()}
	if r.op == Write {
		e.Hash = sha256.Sum256(data)
	}
	l := s.l
	l.mu.Lock()
	i := len(l.log)
	l.log = append(l.log, e)
	rule, held := l.matchLocked(e)
	counted := rule == nil || !rule.Stray
	if counted {
		l.busy[s.host]++
	}
	l.mu.Unlock()
	go func() {
		s.finish(i, r, data, rule, held)
		<-s.slots
		if counted {
			l.leave(s.host)
		}
	}()
}

func (s *session) finish(i int, r request, data []byte, rule *Rule, held <-chan verdict) {
	answer := verdict{}
	if rule != nil {
		answer = rule.wait(held)
	}
	if answer.drop {
		return
	}
	e := answer.errno
	if e == 0 {
		e = r.check(s.l.size)
	}
	var out []byte
	if e == 0 {
		out, e = s.l.perform(i, r, data)
	}
	b := append(reply(r.cookie, e), out...)
	// Noted first, so that whoever has the answer finds it in the log.
	s.l.note(i, func(ev *Event) { ev.Done, ev.Err, ev.Answered = time.Now(), e, true })
	s.wmu.Lock()
	_, err := s.conn.Write(b)
	s.wmu.Unlock()
	if err != nil {
		s.l.note(i, func(ev *Event) { ev.Answered = false })
	}
}

func (l *LUN) note(i int, change func(*Event)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.log[i])
}

// perform carries out a request whose range was checked.
func (l *LUN) perform(i int, r request, data []byte) ([]byte, Errno) {
	var out []byte
	var err error
	switch r.op {
	case Read:
		out = make([]byte, r.length)
		_, err = l.f.ReadAt(out, int64(r.offset))
	case Write:
		err = l.land(i, func() error {
			_, err := l.f.WriteAt(data, int64(r.offset))
			return err
		})
	case Trim, WriteZeroes:
		err = l.land(i, func() error { return l.punch(r.offset, r.length) })
	case Flush:
		// What landed survives every host, which is all that a flush asks of
		// a disk array; the machine outside does not lose its power in a test.
	}
	if err != nil {
		return nil, EIO
	}
	return out, 0
}

// land changes the disk. One change at a time makes their order a fact.
func (l *LUN) land(i int, change func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := change(); err != nil {
		return err
	}
	l.landed++
	l.log[i].Landed = l.landed
	return nil
}

// punch makes a range read as zeroes.
func (l *LUN) punch(offset uint64, length uint32) error {
	if length == 0 {
		return nil
	}
	const keepSize, punchHole = 1, 2 // FALLOC_FL_* of linux/falloc.h
	return syscall.Fallocate(int(l.f.Fd()), keepSize|punchHole, int64(offset), int64(length))
}

func (l *LUN) enter(host string) {
	l.mu.Lock()
	l.busy[host]++
	l.mu.Unlock()
}

func (l *LUN) leave(host string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy[host]--; l.busy[host] == 0 {
		delete(l.busy, host)
		close(l.idle)
		l.idle = make(chan struct{})
	}
}

// Drain waits until no connection of the host is left and none of its
// requests is under way, save for those that a Stray rule keeps.
func (l *LUN) Drain(ctx context.Context, host string) error {
	for {
		l.mu.Lock()
		n, idle := l.busy[host], l.idle
		l.mu.Unlock()
		if n == 0 {
			return nil
		}
		select {
		case <-idle:
		case <-ctx.Done():
			return fmt.Errorf("nbd: host %s still has %d connections or requests: %w", host, n, context.Cause(ctx))
		}
	}
}

// Log returns what happened so far, in order of arrival.
func (l *LUN) Log() []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]Event(nil), l.log...)
}
