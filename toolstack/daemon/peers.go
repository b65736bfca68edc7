// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/kemari-ft/kemari/toolstack/lease"
	"github.com/kemari-ft/kemari/toolstack/link"
	"github.com/kemari-ft/kemari/toolstack/secondary"
	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/xen/kemariop"
)

// maxStrangers bounds the connections over which nobody has said HELLO yet.
const maxStrangers = 64

func (d *Daemon) acceptPeers(ctx context.Context, l net.Listener) {
	strangers := make(chan struct{}, maxStrangers)
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
			return
		}
		if err != nil {
			d.host.Log.Warn("accepting a connection", "error", err)
			time.Sleep(pollTime)
			continue
		}
		strangers <- struct{}{}
		go func() {
			defer func() { <-strangers }()
			conn := link.New(c)
			err := d.greet(conn)
			switch {
			case errors.Is(err, io.EOF):
				conn.Close() // it only wanted to know whether we listen
			case err != nil:
				d.host.Log.Warn("a peer is not served", "peer", conn.Peer(), "error", err)
				conn.Close()
			}
		}()
	}
}

// greet waits for HELLO and finds the receiver for it.
func (d *Daemon) greet(conn *link.Conn) error {
	if err := conn.Expect(); err != nil {
		return err
	}
	// Each connection has its own pool: what was staged over an earlier one
	// is still being applied from that one's.
	rd := stream.NewReader(conn, stream.Primary, secondary.Limits, stream.NewPool())
	msg, err := rd.Next()
	if err != nil {
		return err
	}
	hello, ok := msg.(*stream.Hello)
	if !ok {
		return fmt.Errorf("%T instead of HELLO", msg)
	}
	r, reasons, err := d.receiver(uuid.UUID(hello.Guest))
	if err != nil {
		reasons = append(reasons, err.Error())
	}
	if len(reasons) > 0 {
		conn.Refuse(reasons)
		return errors.New(strings.Join(reasons, "; "))
	}
	r.Accept(conn, rd, hello)
	return nil
}

// receiver finds or makes the receiver of a guest.
func (d *Daemon) receiver(guest uuid.UUID) (*secondary.Receiver, []string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopping {
		return nil, []string{"kemarid is being stopped"}, nil
	}
	if g := d.primaries[guest]; g != nil {
		return nil, []string{fmt.Sprintf("guest %s runs on this host and is protected by it", g.policy.Name)}, nil
	}
	if r := d.secondaries[guest]; r != nil {
		select {
		case <-r.Done():
			delete(d.secondaries, guest)
		default:
			return r, nil, nil
		}
	}
	rec, err := d.host.Records.Load(guest)
	if err != nil {
		return nil, nil, err
	}
	if _, err := secondary.FindShell(d.host, guest); err != nil {
		return nil, nil, err
	}
	if rec.Phase == lease.Running {
		rec.Phase = lease.Ended // the domain it ran in is no more
	}
	r := secondary.New(secondary.Config{Host: d.host, Guest: guest, Record: rec, Disks: d.disks, Activated: d.activated})
	d.secondaries[guest] = r
	go func() {
		<-r.Done()
		if err := r.Err(); err != nil {
			d.host.Log.Error("a copy is given up", "uuid", guest, "error", err)
			d.fail(err)
		}
	}()
	return r, nil, nil
}

// activated notes that a guest runs here now.
func (d *Daemon) activated(a secondary.Activation) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.activations[a.Guest] = a
}

// check gives every reason why this host and the peer cannot protect guests.
func (d *Daemon) check(ctx context.Context, peer string) []string {
	var reasons []string
	op, err := kemariop.New(d.host.Hypercalls, 0)
	if err == nil {
		_, err = op.Status()
		_ = op.Close()
	}
	// Domain 0 is refused its own status, which tells that there is one.
	if errors.Is(err, kemariop.ErrVersion) || errors.Is(err, kemariop.ErrUnsupported) && !d.patched() {
		reasons = append(reasons, err.Error())
	}
	if _, err := d.host.Store.Control("watches"); err != nil {
		reasons = append(reasons, fmt.Sprintf("xenstored is not oxenstored, which is needed: set XENSTORED=oxenstored in xencommons (%v)", err))
	}
	if len(d.host.Config.Fence) == 0 {
		d.host.Log.Debug("no fence_command: nothing is taken over without the operator")
	}
	if peer == "" {
		return append(reasons, "no peer: set peer in kemari.conf, or ft_peer in the guest's configuration")
	}
	t, err := d.transport(peer)
	if err != nil {
		return append(reasons, err.Error())
	}
	ctx, cancel := context.WithTimeout(ctx, link.HelloTime/2)
	defer cancel()
	c, err := t.Dial(ctx)
	if err != nil {
		return append(reasons, err.Error())
	}
	_ = c.Close()
	return reasons
}

// patched asks about a domain that is not this one.
func (d *Daemon) patched() bool {
	names, err := d.host.Store.List("/local/domain")
	if err != nil {
		return false
	}
	asked := false
	for _, n := range names {
		dom, _, _, err := d.host.Resolve(n)
		if err != nil || dom == 0 {
			continue
		}
		asked = true
		op, err := kemariop.New(d.host.Hypercalls, dom)
		if err != nil {
			continue
		}
		_, err = op.Status()
		_ = op.Close()
		if err == nil {
			return true
		}
	}
	// Without a guest to ask about, enabling one will tell.
	return !asked
}
