// SPDX-License-Identifier: Apache-2.0

package nbd

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
)

// client is the least of an NBD client: it negotiates with GO, or EXPORT_NAME
// if old is set, and sends requests that may be answered in any order.
type client struct {
	t    *testing.T
	conn net.Conn
	size uint64

	mu      sync.Mutex
	cookie  uint64
	waiting map[uint64]*pending
}

type pending struct {
	length uint32 // of the data that a good answer carries
	c      chan answer
}

type answer struct {
	err  Errno
	data []byte
}

func dial(t *testing.T, l *LUN, host string, old bool) *client {
	t.Helper()
	ours, theirs := net.Pipe()
	go l.ServeConn(theirs)
	c := &client{t: t, conn: ours, waiting: map[uint64]*pending{}}
	if err := c.negotiate(host, old); err != nil {
		t.Fatalf("negotiation: %v", err)
	}
	go c.read()
	t.Cleanup(func() { ours.Close() })
	return c
}

func (c *client) negotiate(host string, old bool) error {
	var hello [18]byte
	if _, err := io.ReadFull(c.conn, hello[:]); err != nil {
		return err
	}
	c.conn.Write(binary.BigEndian.AppendUint32(nil, flagFixedNewstyle|flagNoZeroes))
	if old {
		c.option(optExportName, []byte(host))
		var b [10]byte
		_, err := io.ReadFull(c.conn, b[:])
		c.size = binary.BigEndian.Uint64(b[:])
		return err
	}
	const optStructuredReply = 8
	c.option(optStructuredReply, nil)
	if kind, _, err := c.optionReply(); err != nil || kind != repErrUnsup {
		return fmt.Errorf("structured replies answered with %#x, %v", kind, err)
	}
	data := binary.BigEndian.AppendUint32(nil, uint32(len(host)))
	data = append(append(data, host...), 0, 0)
	c.option(optGo, data)
	for {
		kind, data, err := c.optionReply()
		switch {
		case err != nil:
			return err
		case kind == repAck:
			return nil
		case kind == repInfo && binary.BigEndian.Uint16(data) == infoExport:
			c.size = binary.BigEndian.Uint64(data[2:])
		}
	}
}

func (c *client) option(opt uint32, data []byte) {
	b := binary.BigEndian.AppendUint64(nil, magicOption)
	b = binary.BigEndian.AppendUint32(b, opt)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	c.conn.Write(append(b, data...))
}

func (c *client) optionReply() (uint32, []byte, error) {
	var h [20]byte
	if _, err := io.ReadFull(c.conn, h[:]); err != nil {
		return 0, nil, err
	}
	data := make([]byte, binary.BigEndian.Uint32(h[16:]))
	_, err := io.ReadFull(c.conn, data)
	return binary.BigEndian.Uint32(h[12:]), data, err
}

func (c *client) read() {
	for {
		var h [replyLen]byte
		if _, err := io.ReadFull(c.conn, h[:]); err != nil {
			return
		}
		a := answer{err: Errno(binary.BigEndian.Uint32(h[4:]))}
		c.mu.Lock()
		p := c.waiting[binary.BigEndian.Uint64(h[8:])]
		c.mu.Unlock()
		if p == nil {
			c.t.Errorf("answer to a request that was never sent: %x", h)
			return
		}
		if a.err == 0 && p.length > 0 {
			a.data = make([]byte, p.length)
			if _, err := io.ReadFull(c.conn, a.data); err != nil {
				return
			}
		}
		p.c <- a
	}
}

// start sends a request; data is what a write carries.
func (c *client) start(op Op, offset uint64, length uint32, data []byte) <-chan answer {
	p := &pending{c: make(chan answer, 1)}
	if op == Read {
		p.length = length
	}
	c.mu.Lock()
	c.cookie++
	cookie := c.cookie
	c.waiting[cookie] = p
	c.mu.Unlock()
	c.conn.Write(append(header(op, cookie, offset, length), data...))
	return p.c
}

func header(op Op, cookie, offset uint64, length uint32) []byte {
	b := binary.BigEndian.AppendUint32(nil, magicRequest)
	b = binary.BigEndian.AppendUint16(b, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(op))
	b = binary.BigEndian.AppendUint64(b, cookie)
	b = binary.BigEndian.AppendUint64(b, offset)
	return binary.BigEndian.AppendUint32(b, length)
}

func (c *client) write(offset uint64, text string) <-chan answer {
	return c.start(Write, offset, uint32(len(text)), []byte(text))
}

func (c *client) mustRead(offset uint64, length uint32) string {
	c.t.Helper()
	a := <-c.start(Read, offset, length, nil)
	if a.err != 0 {
		c.t.Fatalf("read at %d: error %d", offset, a.err)
	}
	return string(a.data)
}
