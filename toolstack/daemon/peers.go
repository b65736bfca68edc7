// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/kemari-ft/kemari/toolstack/config"
	"github.com/kemari-ft/kemari/toolstack/host"
	"github.com/kemari-ft/kemari/toolstack/lease"
	"github.com/kemari-ft/kemari/toolstack/link"
	"github.com/kemari-ft/kemari/toolstack/replica"
	"github.com/kemari-ft/kemari/toolstack/secondary"
	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/toolstack/transport"
	"github.com/kemari-ft/kemari/xen/abi"
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
	guest := uuid.UUID(hello.Guest)
	local := d.host.Identity.Hello(stream.Secondary, guest, hello.DomID)
	reasons := append(d.unfit(), replica.Incompatible(&local, hello)...)
	var r *secondary.Receiver
	if guest != uuid.Nil {
		var theirs []string
		if r, theirs, err = d.receiver(guest); err != nil {
			theirs = append(theirs, err.Error())
		}
		reasons = append(reasons, theirs...)
	}
	if len(reasons) > 0 {
		conn.Refuse(stream.Refuse{TakenOver: d.takenOver(hello), Reasons: reasons})
		return errors.New(strings.Join(reasons, "; "))
	}
	if r != nil {
		r.Accept(conn, rd, hello)
		return nil
	}
	// About no guest: it wants to know whether there could be one.
	if err := conn.Hello(local); err != nil {
		return err
	}
	_, err = rd.Next()
	return err
}

// takenOver: the guest of a HELLO was activated here, and whoever says HELLO may have
// let go of it before that.
func (d *Daemon) takenOver(h *stream.Hello) bool {
	rec, err := d.host.Records.Load(uuid.UUID(h.Guest))
	switch {
	case err != nil:
		return false // the reasons say so
	case rec.Role == lease.Secondary:
		return rec.Phase == lease.Running && h.Generation <= rec.Generation
	}
	// It goes on here in a generation of its own.
	return h.Generation < rec.Generation
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
	delete(d.activations, guest)
	r := secondary.New(secondary.Config{Host: d.host, Guest: guest, Record: rec, Disks: d.disks, Activated: d.activated})
	d.secondaries[guest] = r
	go func() {
		<-r.Done()
		if err := r.Err(); err != nil {
			d.host.Log.Error("a copy is given up", "uuid", guest, "error", err)
			// The others' copies live in this process.
			if errors.Is(err, host.ErrPersist) {
				d.fail(err)
			}
		}
	}()
	return r, nil, nil
}

// activated notes that a guest runs here now. It is protected again when an operator
// says so, whatever held when it was here before.
func (d *Daemon) activated(a secondary.Activation) {
	if err := d.host.Records.RemovePolicy(a.Guest); err != nil {
		d.host.Log.Error("the guest would be protected when it reboots", "uuid", a.Guest, "error", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.activations[a.Guest] = a
	delete(d.secondaries, a.Guest) // it is no copy any more
}

// check gives every reason why this host and the peer cannot protect guests, or
// one guest, if about is its HELLO.
func (d *Daemon) check(ctx context.Context, peer string, about *stream.Hello) []string {
	reasons := d.unfit()
	if err := d.mayPeer(peer); err != nil {
		reasons = append(reasons, err.Error())
	}
	if peer == "" {
		return reasons
	}
	t, err := d.transport(peer)
	if err != nil {
		return append(reasons, err.Error())
	}
	if about == nil {
		h := d.host.Identity.Hello(stream.Primary, uuid.Nil, 0)
		about = &h
	}
	theirs, err := askPeer(ctx, t, about)
	if err != nil {
		theirs = []string{err.Error()}
	}
	return append(reasons, theirs...)
}

// cautions are what keeps no guest from being protected, and may keep it from being
// taken over.
func cautions(c *config.Host) (texts []string) {
	if len(c.Fence) == 0 {
		texts = append(texts, "warning: no fence_command in kemari.conf: nothing is taken over before an operator says that the peer is off")
	}
	if c.Listen.Transport == "" {
		texts = append(texts, "warning: no listen in kemari.conf: this host takes no guests")
	}
	if c.HeartbeatSecond == "" {
		texts = append(texts, "warning: no heartbeat_second in kemari.conf: each fault of the replication link, and each restart of the peer's kemarid, looks like the death of the peer, which is then fenced")
	}
	return texts
}

// askPeer says HELLO, and hangs up on the answer: what the peer has against it.
// A wrong certificate, too, shows not before there is something to read.
func askPeer(ctx context.Context, t transport.Transport, about *stream.Hello) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, link.HelloTime/2)
	defer cancel()
	c, err := t.Dial(ctx)
	if err != nil {
		return nil, err
	}
	conn := link.New(c)
	defer conn.Close()
	if err = conn.Expect(); err == nil {
		err = conn.Hello(*about)
	}
	var msg any
	if err == nil {
		msg, err = stream.NewReader(conn, stream.Secondary, stream.Limits{}, nil).Next()
	}
	if err != nil {
		return nil, fmt.Errorf("%s does not answer: %w", t, err)
	}
	switch msg := msg.(type) {
	case *stream.Hello:
		return replica.Incompatible(about, msg), nil
	case *stream.Refuse:
		return msg.Reasons, nil
	}
	return nil, fmt.Errorf("%s answers HELLO with %T", t, msg)
}

// unfit gives every reason why no guest can be protected, or its copy held, on
// this host.
func (d *Daemon) unfit() (reasons []string) {
	if err := d.patched(); err != nil {
		reasons = append(reasons, err.Error())
	}
	if _, err := d.host.Store.Control("watches"); err != nil {
		reasons = append(reasons, fmt.Sprintf("xenstored is not oxenstored, which is needed: set XENSTORED=oxenstored in xencommons (%v)", err))
	}
	return reasons
}

// patched says why not.
func (d *Daemon) patched() error {
	status := func(dom abi.DomID) error {
		op, err := kemariop.New(d.host.Hypercalls, dom)
		if err != nil {
			return err
		}
		defer op.Close()
		_, err = op.Status()
		return err
	}
	// Only a Xen that knows the operation tells this domain from others.
	if err := status(abi.Dom0); err != nil && !errors.Is(err, syscall.EINVAL) {
		return err
	}
	names, err := d.host.Store.List("/local/domain")
	if err != nil {
		return err
	}
	for _, n := range names {
		id, err := strconv.ParseUint(n, 10, 16)
		if err != nil || id == 0 {
			continue
		}
		if err := status(abi.DomID(id)); errors.Is(err, kemariop.ErrVersion) {
			return err // the version is in the answer about another domain
		}
	}
	return nil
}
