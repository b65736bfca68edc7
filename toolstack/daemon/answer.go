// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/kemari-ft/kemari/toolstack/control"
	"github.com/kemari-ft/kemari/toolstack/host"
	"github.com/kemari-ft/kemari/toolstack/lease"
	"github.com/kemari-ft/kemari/toolstack/primary"
	"github.com/kemari-ft/kemari/toolstack/replica"
	"github.com/kemari-ft/kemari/toolstack/secondary"
)

// Answer is the daemon's control.Handler.
func (d *Daemon) Answer(ctx context.Context, r *control.Request, progress func(string)) control.Reply {
	var reply control.Reply
	var err error
	switch r.Op {
	case control.OpStatus:
		reply, err = d.status(r)
	case control.OpProtect:
		err = d.protect(ctx, r.Guest, r.Peer, r.Interval, progress)
	case control.OpUnprotect:
		err = d.unprotect(ctx, r.Guest, r.PeerIsOff, progress)
	case control.OpFailover:
		err = d.failover(ctx, r.Guest, r.PeerIsOff, progress)
	case control.OpCheck:
		peer := r.Peer
		if peer == "" {
			peer = d.host.Config.Peer.String()
		}
		reply.Reasons = d.check(ctx, peer, nil)
		for _, text := range cautions(d.host.Config) {
			progress(text)
		}
	case control.OpPrepare:
		var id uuid.UUID
		if id, err = uuid.Parse(r.UUID); err == nil {
			dom, perr := d.prepare(ctx, id, r.Name, r.Peer, r.Interval, r.Config)
			reply.DomID, err = uint16(dom), perr
		}
	}
	if err != nil {
		reply.Error = err.Error()
	}
	return reply
}

// lookUp finds what is known of a guest under a name, domid or UUID.
func (d *Daemon) lookUp(guest string) (*guarded, *secondary.Receiver, uuid.UUID, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, g := range d.primaries {
		if g.policy.Name == guest || id.String() == guest {
			return g, nil, id, nil
		}
	}
	for id, r := range d.secondaries {
		if r.Status().Name == guest || id.String() == guest {
			return nil, r, id, nil
		}
	}
	_, _, id, err := d.host.Resolve(guest)
	if err != nil {
		// One that is to be protected when it reboots, and is not there.
		id, known := d.recorded(guest)
		if known != nil {
			return nil, nil, id, errors.Join(err, known)
		}
		return nil, nil, id, nil
	}
	return d.primaries[id], d.secondaries[id], id, nil
}

// recorded finds a guest of which only the records know, by name or UUID.
func (d *Daemon) recorded(guest string) (uuid.UUID, error) {
	guests, err := d.host.Records.Guests()
	if err != nil {
		return uuid.Nil, err
	}
	var found []uuid.UUID
	for _, id := range guests {
		policy, err := d.host.Records.Policy(id)
		if err != nil {
			return uuid.Nil, err
		}
		if id.String() == guest || policy != nil && policy.Name == guest {
			found = append(found, id)
		}
	}
	switch len(found) {
	case 0:
		return uuid.Nil, fmt.Errorf("kemarid knows of no guest %s", guest)
	case 1:
		return found[0], nil
	}
	return uuid.Nil, fmt.Errorf("kemarid knows of several guests %s; name one by its UUID: %v", guest, found)
}

// unprotect ends a protection, and waits until the guest is an ordinary one. One
// that is not protected now is not protected either when it reboots.
func (d *Daemon) unprotect(ctx context.Context, guest string, peerIsOff bool, progress func(string)) error {
	g, r, id, err := d.lookUp(guest)
	switch {
	case err != nil:
		return err
	case g == nil && r != nil:
		return fmt.Errorf("this host holds the copy of %s; unprotect it on the host where it runs", guest)
	}
	policy, err := d.forget(id, g)
	if err != nil {
		return err
	}
	if g == nil {
		if policy == nil {
			return fmt.Errorf("%s is not protected", guest)
		}
		return nil
	}
	if err := g.session.Err(); err != nil {
		return fmt.Errorf("the session of %s broke off, and is being taken up again; the protection ends when it has been: %w", guest, err)
	}
	g.session.Send(replica.Unprotect{})
	if peerIsOff {
		g.session.Send(replica.PeerIsOff{})
	}
	return d.await(ctx, g.session, nil, progress)
}

// forget keeps a guest from being protected again, and returns how it would have been.
func (d *Daemon) forget(id uuid.UUID, g *guarded) (*host.Policy, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if g != nil {
		g.unwanted = true
	}
	policy, err := d.host.Records.Policy(id)
	if err != nil {
		return nil, err
	}
	return policy, d.host.Records.RemovePolicy(id)
}

// await waits for the end of a session, or for the reason why there will be none.
func (d *Daemon) await(ctx context.Context, s *primary.Session, refused <-chan string, progress func(string)) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-s.Done():
			return s.Err()
		case why := <-refused:
			return errors.New(why)
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			st := s.Status(false)
			progress(strings.TrimSpace(st.Waiting + " " + st.Text))
		}
	}
}

// failover lets the guest go on at the other host, or here if this one holds
// the copy.
func (d *Daemon) failover(ctx context.Context, guest string, peerIsOff bool, progress func(string)) error {
	g, r, id, err := d.lookUp(guest)
	switch {
	case err != nil:
		return err
	case g != nil && peerIsOff:
		return fmt.Errorf("%s runs here; to end its protection, use kemari unprotect --peer-is-off", guest)
	case g != nil:
		if err := d.await(ctx, g.session, g.session.HandOver(), progress); err != nil {
			return err
		}
		if rec, err := d.host.Records.Load(id); err != nil || rec.Phase != lease.HandedOver {
			return errors.Join(err, fmt.Errorf("%s was not handed over: %s", guest, g.session.Status(false).Text))
		}
		return nil
	case r == nil:
		return fmt.Errorf("%s is not protected", guest)
	}
	refused := r.Failover(peerIsOff)
	tick := time.NewTicker(pollTime)
	defer tick.Stop()
	said := ""
	for {
		st := r.Status()
		if st.Activation != nil {
			return nil
		}
		if st.Text != said {
			said = st.Text
			progress(said)
		}
		select {
		case why := <-refused:
			return errors.New(why)
		case <-r.Done():
			if r.Status().Activation == nil {
				return errors.Join(errors.New("the guest was not activated"), r.Err())
			}
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// status describes the host and its guests, or one of them.
func (d *Daemon) status(r *control.Request) (control.Reply, error) {
	guests, err := d.host.Records.Guests()
	if err != nil {
		return control.Reply{}, err
	}
	d.mu.Lock()
	for id := range d.primaries {
		if !slices.Contains(guests, id) {
			guests = append(guests, id)
		}
	}
	d.mu.Unlock()
	reply := control.Reply{Host: &control.Host{
		UUID: d.host.Identity.UUID.String(), XenVersion: d.host.Identity.XenVersion,
		Peer: d.host.Config.Peer.String(), Fence: len(d.host.Config.Fence) > 0,
	}}
	for _, id := range guests {
		g, err := d.describe(id, r.Syncs)
		if err != nil {
			return control.Reply{}, err
		}
		if asked(r.Guest, g) {
			reply.Guests = append(reply.Guests, g)
		}
	}
	if r.Guest != "" && len(reply.Guests) == 0 {
		return reply, fmt.Errorf("%s is not protected, and never was", r.Guest)
	}
	slices.SortFunc(reply.Guests, func(a, b control.Guest) int { return strings.Compare(a.Name+a.UUID, b.Name+b.UUID) })
	return reply, nil
}

// asked: guest is the name, UUID or domid of g, or empty for all that have not
// ended.
func asked(guest string, g control.Guest) bool {
	if guest == "" {
		return g.State != string(lease.Ended)
	}
	return guest == g.Name || guest == g.UUID || guest == fmt.Sprint(g.DomID)
}

func (d *Daemon) describe(id uuid.UUID, syncs bool) (control.Guest, error) {
	out := control.Guest{UUID: id.String()}
	rec, err := d.host.Records.Load(id)
	if err != nil {
		return out, err
	}
	out.Role, out.State, out.Generation, out.Epoch = string(rec.Role), string(rec.Phase), rec.Generation, rec.Epoch
	policy, err := d.host.Records.Policy(id)
	if err != nil {
		return out, err
	}
	if policy != nil {
		out.Name, out.Peer = policy.Name, policy.Peer
	}
	dom, name, err := d.host.Find(id)
	if err != nil {
		return out, err
	}
	if dom != 0 {
		out.DomID, out.Name = uint16(dom), name
	}
	d.mu.Lock()
	g, r := d.primaries[id], d.secondaries[id]
	activation, activated := d.activations[id]
	d.mu.Unlock()
	if activated {
		out.Activation = &activation
	}
	switch {
	case g != nil:
		st := g.session.Status(syncs)
		out.Name, out.Peer, out.Role = g.policy.Name, g.policy.Peer, control.RolePrimary
		out.State, out.Generation, out.Epoch = string(st.Record.Phase), st.Record.Generation, st.Epoch
		out.Waiting, out.Text, out.Copied, out.Total = st.Waiting, st.Text, st.Copied, st.Total
		out.Syncs, out.Reads, out.PutOff, out.Busy, out.Last = st.Syncs, st.Reads, st.PutOff, st.Busy, st.Last
		broke := g.session.Err()
		if broke == nil && st.Syncs == 0 {
			broke = g.before // that it is taken up again is not known yet
		}
		if broke != nil {
			out.Text = fmt.Sprintf("its session broke off, and is being taken up again: %v", broke)
		}
	case r != nil:
		st := r.Status()
		if st.Name != "" {
			out.Name = st.Name
		}
		out.Epoch, out.Text, out.Dropped = st.Image.Acked, st.Text, st.Dropped
		if err := r.Err(); err != nil {
			out.State, out.Text = "lost", err.Error()
		}
		if !st.Image.Whole && rec.Phase == lease.Protecting {
			out.State = "lost"
		}
	case rec.Role == lease.Secondary && rec.Phase == lease.Protecting:
		out.State = "lost" // with the daemon that held it
	case rec.Role == lease.Primary && rec.Phase == lease.Protecting && dom == 0:
		out.Text = "this host went down while it protected the guest: look on the peer"
	case rec.Phase == lease.Running && dom == 0:
		out.State = string(lease.Ended)
	}
	return out, nil
}
