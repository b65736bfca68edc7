// SPDX-License-Identifier: Apache-2.0

// Package xenstore is a client of xenstored, C or OCaml, over its unix socket
// or the kernel's /dev/xen/xenbus. See docs/misc/xenstore.txt and
// xen/include/public/io/xs_wire.h.
//
// Requests may be issued concurrently; answers are matched by request id.
// Watch events are queued without bound, so that a slow reader of one watch
// delays neither answers nor other watches; Watch.Pending tells the backlog.
package xenstore

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/internal/sys"
)

// Where xenstored is found. See xs_open() and xenstore_daemon_path() in
// tools/libs/store/xs.c.
const (
	envSocket     = "XENSTORED_PATH"
	defaultSocket = "/run/xenstored/socket"
	xenbusDevice  = "/dev/xen/xenbus"
)

// Client is a connection to xenstored. Its methods may be called concurrently.
type Client struct {
	ops
	conn io.ReadWriteCloser

	writeMu sync.Mutex // one message at a time; protects out
	out     []byte

	mu      sync.Mutex // protects what follows
	nextID  uint32
	token   uint64
	pending map[uint32]chan message
	watches map[string]*Watch
	err     error // why the connection ended

	done chan struct{} // closed when err is set
}

// Dial connects to xenstored: path is its socket or the xenbus device. "" means
// $XENSTORED_PATH, else the default socket, else the device.
func Dial(path string) (*Client, error) {
	if path == "" {
		path = os.Getenv(envSocket)
	}
	if path == "" {
		c, err := dial(defaultSocket)
		if errors.Is(err, os.ErrNotExist) {
			// xenstored may run in a domain of its own.
			if c, err2 := dial(xenbusDevice); err2 == nil {
				return c, nil
			}
		}
		return c, err
	}
	return dial(path)
}

func dial(path string) (*Client, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("xenstore: %w (is xenstored running?)", err)
	}
	if st.Mode()&os.ModeCharDevice != 0 {
		f, err := sys.OpenFile(path)
		if err != nil {
			return nil, fmt.Errorf("xenstore: %w", err)
		}
		return newClient(f), nil
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, fmt.Errorf("xenstore: %w (is xenstored running?)", err)
	}
	return newClient(conn), nil
}

func newClient(conn io.ReadWriteCloser) *Client {
	c := &Client{
		conn:    conn,
		pending: make(map[uint32]chan message),
		watches: make(map[string]*Watch),
		done:    make(chan struct{}),
	}
	c.ops.c = c
	go c.read()
	return c
}

// Close ends the connection, and with it all watches and transactions.
func (c *Client) Close() error {
	if !c.fail(os.ErrClosed) {
		return fmt.Errorf("xenstore: close: %w", os.ErrClosed)
	}
	return nil
}

// Done is closed when the connection has ended; Err then says why.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err returns why the connection ended, or nil.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// fail ends the connection. It reports false if it had ended before.
func (c *Client) fail(err error) bool {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return false
	}
	c.err = err
	watches := c.watches
	c.watches = make(map[string]*Watch)
	close(c.done)
	c.mu.Unlock()
	c.conn.Close()
	for _, w := range watches {
		w.stop()
	}
	return true
}

func (c *Client) read() {
	r := bufio.NewReader(c.conn)
	for {
		m, err := readMessage(r)
		if err == nil {
			err = c.dispatch(m)
		}
		if err != nil {
			c.fail(fmt.Errorf("xenstore: connection lost: %w", err))
			return
		}
	}
}

func (c *Client) dispatch(m message) error {
	if m.typ == abi.XSWatchEvent {
		s := splitStrings(m.payload)
		if len(s) < 2 {
			return fmt.Errorf("malformed watch event %q", m.payload)
		}
		c.mu.Lock()
		w := c.watches[s[1]]
		c.mu.Unlock()
		if w != nil { // else an event that crossed its UNWATCH
			w.push(Event{Path: s[0]})
		}
		return nil
	}
	c.mu.Lock()
	ch, ok := c.pending[m.reqID]
	delete(c.pending, m.reqID)
	c.mu.Unlock()
	if !ok {
		return fmt.Errorf("answer of type %d to request %d, which was not made", m.typ, m.reqID)
	}
	ch <- m // has room for the one answer
	return nil
}

// request sends one request and returns the payload of its answer. what names
// its object in errors.
func (c *Client) request(typ, tx uint32, what string, payload string) ([]byte, error) {
	if len(payload) > abi.XenstorePayloadMax {
		// xenstored would cut the connection (docs/misc/xenstore.txt).
		return nil, &Error{Op: opNames[typ], Path: what, Errno: syscall.E2BIG,
			Name: fmt.Sprintf("nothing, for %d bytes are more than a request can hold, E2BIG", len(payload))}
	}
	ch := make(chan message, 1)
	c.mu.Lock()
	if c.err != nil {
		err := c.err
		c.mu.Unlock()
		return nil, fmt.Errorf("xenstore: %s %s: %w", opNames[typ], what, err)
	}
	c.nextID++
	if c.nextID == 0 {
		c.nextID++ // 0 is the id of watch events
	}
	id := c.nextID
	c.pending[id] = ch
	c.mu.Unlock()

	c.writeMu.Lock()
	c.out = append(appendHeader(c.out[:0], typ, id, tx, len(payload)), payload...)
	_, err := c.conn.Write(c.out)
	c.writeMu.Unlock()
	if err != nil {
		c.fail(fmt.Errorf("xenstore: connection lost: %w", err))
	}

	select {
	case m := <-ch:
		return checkReply(m, typ, what)
	case <-c.done:
		select {
		case m := <-ch: // the answer came first
			return checkReply(m, typ, what)
		default:
		}
		return nil, fmt.Errorf("xenstore: %s %s: %w", opNames[typ], what, c.Err())
	}
}

func checkReply(m message, typ uint32, what string) ([]byte, error) {
	switch m.typ {
	case abi.XSError:
		return nil, newError(opNames[typ], what, m.payload)
	case typ:
		return m.payload, nil
	}
	return nil, fmt.Errorf("xenstore: %s %s: answer of type %d", opNames[typ], what, m.typ)
}

// Control sends a command to xenstored itself (XS_CONTROL): the words of a
// xenstore-control(1) command line. What it can do differs between the daemons.
func (c *Client) Control(args ...string) (string, error) {
	b, err := c.request(abi.XSControl, 0, strings.Join(args, " "), terminate(args...))
	return strings.TrimRight(string(b), "\x00"), err
}

// IntroduceDomain tells xenstored to serve dom over the ring at gfn and the
// domain's unbound port.
func (c *Client) IntroduceDomain(dom abi.DomID, gfn abi.GFN, port abi.Port) error {
	_, err := c.request(abi.XSIntroduce, 0, dom.String(),
		terminate(domid(dom), strconv.FormatInt(int64(gfn), 10), strconv.FormatUint(uint64(port), 10)))
	return err
}

// ReleaseDomain tells xenstored to stop serving dom.
func (c *Client) ReleaseDomain(dom abi.DomID) error {
	_, err := c.request(abi.XSRelease, 0, dom.String(), terminate(domid(dom)))
	return err
}

// IsDomainIntroduced reports whether xenstored serves dom.
func (c *Client) IsDomainIntroduced(dom abi.DomID) (bool, error) {
	b, err := c.request(abi.XSIsDomainIntroduced, 0, dom.String(), terminate(domid(dom)))
	return len(b) > 0 && b[0] == 'T', err
}

// DomainPath returns the base path of dom, /local/domain/<domid>.
func (c *Client) DomainPath(dom abi.DomID) (string, error) {
	b, err := c.request(abi.XSGetDomainPath, 0, dom.String(), terminate(domid(dom)))
	return strings.TrimRight(string(b), "\x00"), err
}

func domid(d abi.DomID) string { return strconv.Itoa(int(d)) }

// terminate joins strings, each with its NUL.
func terminate(s ...string) string { return strings.Join(s, "\x00") + "\x00" }
