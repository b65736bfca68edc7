// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/kemari-ft/kemari/toolstack/host"
	"github.com/kemari-ft/kemari/toolstack/lease"
	"github.com/kemari-ft/kemari/toolstack/primary"
	"github.com/kemari-ft/kemari/toolstack/replica"
	"github.com/kemari-ft/kemari/toolstack/secondary"
	"github.com/kemari-ft/kemari/toolstack/shell/xlstream"
	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/kemariop"
)

// errStopping: a daemon that ends begins nothing.
var errStopping = errors.New("kemarid is being stopped")

// start begins a session for a guest that exists on this host: with adopt one whose
// protection has begun already. before is the session that broke off, if there is one.
func (d *Daemon) start(guest uuid.UUID, dom abi.DomID, policy host.Policy, adopt bool, before *guarded) (*guarded, error) {
	rec, err := d.host.Records.Load(guest)
	if err != nil {
		return nil, err
	}
	if !adopt && rec.Role == lease.Primary && (rec.Phase == lease.Protecting || rec.Phase == lease.HandedOver) {
		// Its session is missing, and it is not for a new one to judge the peer.
		if err := d.mayStart(guest, policy.Name); err != nil {
			return nil, err
		}
	}
	peer, err := d.transport(policy.Peer)
	if err != nil {
		return nil, err
	}
	if err := mark(guest); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopping {
		return nil, errStopping
	}
	if d.primaries[guest] != before {
		return nil, fmt.Errorf("%s is protected already", policy.Name)
	}
	lent := d.disks.Guest(dom)
	if adopt {
		// Disks that no daemon before this one has served are not taken.
		if _, err := lent.Fix(); err != nil {
			return nil, err
		}
		// Also of those that it has not connected: what goes past a gate
		// that is not there is not held.
		lent.Gate()
		lent.Freeze()
	}
	g := &guarded{policy: policy, session: primary.New(primary.Config{
		Host: d.host, Dom: dom, Guest: guest, Name: policy.Name,
		Peer: peer, NoFence: d.mayPeer(policy.Peer), Interval: policy.Interval, Record: rec, Disks: lent, Frozen: adopt,
	})}
	if before != nil {
		g.before, g.unwanted = before.session.Err(), before.unwanted
	}
	lent.OnNeed(g.session.Sync)
	d.primaries[guest] = g
	g.session.Start(adopt)
	if g.unwanted {
		g.session.Send(replica.Unprotect{})
	}
	go d.follow(guest, dom, g)
	return g, nil
}

// retryTime is after how long a session that broke off is taken up again.
const retryTime = time.Second

// follow waits for the end of a session. One that breaks off is taken up again, and
// stands for the guest until then: it is no guest without protection meanwhile.
func (d *Daemon) follow(guest uuid.UUID, dom abi.DomID, g *guarded) {
	<-g.session.Done()
	err, said := g.session.Err(), g.before
	if g.session.Status(false).Syncs > 0 {
		said = nil
	}
	for err != nil && !errors.Is(err, host.ErrPersist) && !errors.Is(err, errStopping) {
		// A reason that lasts is told once: it is tried again every second.
		if said == nil || err.Error() != said.Error() {
			d.host.Log.Error("a session broke off; the guest's output is held until it is taken up again",
				"guest", g.policy.Name, "domid", uint16(dom), "error", err)
		}
		said = err
		// Also if the domain is gone: the other host has to be told.
		time.Sleep(retryTime)
		if _, err = d.start(guest, dom, g.policy, true, g); err == nil {
			return // it is followed in its turn
		}
	}
	d.disks.Guest(dom).OnNeed(nil)
	d.disks.Forget(dom)
	d.mu.Lock()
	delete(d.primaries, guest)
	d.mu.Unlock()
	if errors.Is(err, host.ErrPersist) {
		d.fail(err)
	}
}

// Protect begins to protect a guest, and waits until its first copy is whole.
func (d *Daemon) protect(ctx context.Context, guest, peer string, interval time.Duration, progress func(string)) error {
	dom, name, id, err := d.host.Resolve(guest)
	if err != nil {
		return err
	}
	if strings.HasSuffix(name, xlstream.ShellSuffix) {
		why, err := secondary.NotShell(d.host, id, dom, name)
		if err != nil {
			return err
		}
		if why != "" {
			return fmt.Errorf("%s has the name of a copy and is none: %s; rename it first (kemarid tries to when it starts)", name, why)
		}
		return fmt.Errorf("%s is the copy of a guest that runs on the peer", name)
	}
	d.mu.Lock()
	policy, prepared := d.prepared[id]
	delete(d.prepared, id)
	d.mu.Unlock()
	if !prepared {
		policy = host.Policy{Name: name, Peer: d.host.Config.Peer.String(), Interval: time.Second}
	}
	policy.Name = name
	if peer != "" {
		policy.Peer = peer
	}
	if interval != 0 {
		policy.Interval = interval
	}
	if err := d.mayPeer(policy.Peer); err != nil {
		return err
	}
	g, err := d.start(id, dom, policy, false, nil)
	if err != nil {
		return err
	}
	err = d.awaitCopy(ctx, g, progress)
	if err != nil && ctx.Err() != nil {
		// Whoever asked is gone, the copy goes on.
		go func() {
			if d.awaitCopy(context.Background(), g, func(string) {}) != nil {
				return
			}
			if err := d.remember(id, g); err != nil {
				d.host.Log.Error("the guest will not be protected again when it reboots", "guest", name, "error", err)
			}
		}()
	}
	if err != nil {
		return fmt.Errorf("%s is not protected: %w", name, err)
	}
	return d.remember(id, g)
}

// remember has a guest protected again when it reboots, unless that is not wanted any
// more.
func (d *Daemon) remember(id uuid.UUID, g *guarded) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if g.unwanted {
		return nil
	}
	return d.host.Records.SetPolicy(id, g.policy)
}

// mayPeer refuses a peer that this host could not fence: fence_command knows one
// host, and its success would be taken for a proof about another one (I8, I13).
func (d *Daemon) mayPeer(peer string) error {
	own := d.host.Config.Peer.String()
	switch {
	case peer == "":
		return errors.New("no peer: set peer in kemari.conf, or name one by ft_peer or --peer")
	case peer != own && len(d.host.Config.Fence) > 0:
		return fmt.Errorf("peer %s is not the one of kemari.conf (%s), which is what fence_command switches off", peer, own)
	}
	return nil
}

// awaitCopy waits until the secondary holds a whole copy.
func (d *Daemon) awaitCopy(ctx context.Context, g *guarded, progress func(string)) error {
	tick := time.NewTicker(pollTime)
	defer tick.Stop()
	said := ""
	for {
		st := g.session.Status(false)
		if st.Record.Phase == lease.Protecting && st.Syncs > 0 {
			return nil
		}
		if text := fmt.Sprintf("%d%% copied", st.Copied*10/max(st.Total, 1)*10); st.Copied > 0 && text != said {
			said = text
			progress(text)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.New("nobody waits for the end of the first copy; it goes on")
		case <-g.session.Done():
			return cause(g.session)
		}
	}
}

// cause says why a session has ended.
func cause(s *primary.Session) error {
	if err := s.Refused(); err != nil {
		return err
	}
	if err := s.Err(); err != nil {
		return err
	}
	if text := s.Status(false).Text; text != "" {
		return errors.New(text)
	}
	return errors.New("its protection has ended")
}

// prepare answers xl, which is about to create a guest, with a domid, or with
// 0 if the guest is not to be protected.
func (d *Daemon) prepare(ctx context.Context, id uuid.UUID, name, peer string, interval time.Duration, config bool) (abi.DomID, error) {
	old, err := d.host.Records.Policy(id)
	if err != nil {
		return 0, err
	}
	if !config && old == nil {
		return 0, nil
	}
	policy := host.Policy{Name: name, Peer: d.host.Config.Peer.String(), Interval: time.Second}
	if !config {
		policy = *old
		policy.Name = name
	}
	if peer != "" {
		policy.Peer = peer
	}
	if interval != 0 {
		policy.Interval = interval
	}
	if err := d.awaitEnd(ctx, id, name); err != nil {
		return 0, err
	}
	rec, err := d.host.Records.Load(id)
	if err != nil {
		return 0, err
	}
	dom, err := d.host.FreeDomID()
	if err != nil {
		return 0, err
	}
	about := d.host.Identity.Hello(stream.Primary, id, dom)
	about.Generation = rec.Generation + 1
	var errs []error
	for _, why := range d.check(ctx, policy.Peer, &about) {
		errs = append(errs, errors.New(why))
	}
	if err := errors.Join(append(errs, d.mayStart(id, name))...); err != nil {
		return 0, err
	}
	d.mu.Lock()
	d.prepared[id] = policy
	d.mu.Unlock()
	return dom, nil
}

// endTime bounds how long a guest that reboots waits for the end of its last
// protection.
const endTime = 30 * time.Second

func (d *Daemon) awaitEnd(ctx context.Context, id uuid.UUID, name string) error {
	d.mu.Lock()
	g := d.primaries[id]
	d.mu.Unlock()
	if g == nil {
		return nil
	}
	select {
	case <-g.session.Done():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(endTime):
		st := g.session.Status(false)
		return fmt.Errorf("the protection of %s has not ended yet: %s %s", name, st.Waiting, st.Text)
	}
}

// mayStart is I14: a guest that was ever protected is started here only if the
// other host does not run it, or could.
func (d *Daemon) mayStart(id uuid.UUID, name string) error {
	rec, err := d.host.Records.Load(id)
	if err != nil {
		return err
	}
	if !peerMayRun(rec) {
		return nil
	}
	return fmt.Errorf("%s was protected in generation %d, and this host is its %s (%s): the other host may run it; "+
		"if it certainly does not, remove %s/%s", name, rec.Generation, rec.Role, rec.Phase, d.host.Records.Dir, id)
}

// mayOpen is I14 for a disk.
func (d *Daemon) mayOpen(dom abi.DomID) error {
	info, err := d.host.Ctl.DomainInfo(dom)
	if err != nil {
		return err
	}
	id := uuid.UUID(info.UUID)
	d.mu.Lock()
	g := d.primaries[id]
	d.mu.Unlock()
	if g != nil {
		return nil
	}
	return d.mayStart(id, id.String())
}

// adopt takes up what a daemon before this one has left.
func (d *Daemon) adopt() error {
	guests, err := d.host.Records.Guests()
	if err != nil {
		return err
	}
	for _, id := range guests {
		if err := d.adoptGuest(id); err != nil {
			return err
		}
	}
	return nil
}

func (d *Daemon) adoptGuest(id uuid.UUID) error {
	rec, err := d.host.Records.Load(id)
	if err != nil {
		return err // a record that is not understood must not be ignored
	}
	if rec.Role == lease.Secondary && rec.Phase == lease.Running {
		if err := errors.Join(secondary.Finish(context.Background(), d.host, id), d.host.Records.RemovePolicy(id)); err != nil {
			d.host.Log.Error("an activation cannot be finished", "uuid", id, "error", err)
		}
	}
	if rec.Role != lease.Primary {
		return nil
	}
	dom, name, err := d.host.Find(id)
	if err != nil {
		return err
	}
	policy, err := d.host.Records.Policy(id)
	if err != nil {
		return err
	}
	if policy == nil {
		policy = &host.Policy{Name: name, Peer: d.host.Config.Peer.String(), Interval: time.Second}
	}
	if rec.Peer != "" {
		// Whatever kemari.conf says by now: that is where the copy is.
		policy.Peer = rec.Peer
	}
	if dom == 0 {
		d.absent(id, rec, policy)
		return nil
	}
	held, err := d.held(dom)
	if err != nil || !held && rec.Phase != lease.Protecting {
		return err
	}
	d.host.Log.Info("taking up a protected guest", "guest", name, "domid", uint16(dom), "phase", rec.Phase)
	_, err = d.start(id, dom, *policy, true, nil)
	return err
}

// absentDomID stands for the domid of a guest that is no more: no domain has it
// that xl or kemarid made.
const absentDomID abi.DomID = 0x7fef

// absent deals with a guest that was protected and has no domain any more.
func (d *Daemon) absent(id uuid.UUID, rec lease.Record, policy *host.Policy) {
	if rec.Phase != lease.Protecting && rec.Phase != lease.HandedOver {
		return
	}
	if _, err := os.Stat(marker(id)); errors.Is(err, fs.ErrNotExist) {
		// This host was off. The copy on the other one is all there is.
		d.host.Log.Warn("a guest that was protected when this host went down is not started here; the other host has its copy",
			"guest", policy.Name, "uuid", id, "generation", rec.Generation)
		return
	}
	// It ended while no daemon ran: the other host has to be told.
	if _, err := d.start(id, absentDomID, *policy, true, nil); err != nil {
		d.host.Log.Error("telling the peer that a guest has ended", "guest", policy.Name, "error", err)
	}
}

// held says whether Xen holds the output of a domain.
func (d *Daemon) held(dom abi.DomID) (bool, error) {
	op, err := kemariop.New(d.host.Hypercalls, dom)
	if err != nil {
		return false, err
	}
	defer op.Close()
	st, err := op.Status()
	return err == nil && st.Role == kemariop.RolePrimary, err
}
