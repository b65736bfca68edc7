// SPDX-License-Identifier: Apache-2.0

package disks

import (
	"errors"
	"slices"
	"sync"

	"github.com/kemari-ft/kemari/backend/blkif"
	"github.com/kemari-ft/kemari/backend/gate"
	"github.com/kemari-ft/kemari/backend/xenbus"
	"github.com/kemari-ft/kemari/toolstack/primary"
	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/xen/abi"
)

// Guest is the disks of one guest. It is what a session needs of them.
type Guest struct {
	server *Server
	dom    abi.DomID

	mu     sync.Mutex
	devs   []*device // by handle
	need   func()
	fixed  map[uint32]fixedDisk // the disks that it may have, as served says; nil: any
	gated  bool
	frozen bool
	closed bool

	// What the last Capture saw, device by device; reused.
	at    [][]gate.Indices
	seen  []*device
	rings []stream.Ring
	refs  []abi.GrantRef
}

var _ primary.Disks = (*Guest)(nil)

// OnNeed says whom to tell that a request waits for a sync; nil: nobody.
func (g *Guest) OnNeed(need func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.need = need
}

func (g *Guest) needSync() {
	g.mu.Lock()
	need := g.need
	g.mu.Unlock()
	if need != nil {
		need()
	}
}

func (g *Guest) idle() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.devs) == 0 && g.need == nil
}

func (g *Guest) event(port abi.Port) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, d := range g.devs {
		if d.Event(port) {
			return true
		}
	}
	return false
}

// add takes a device in, or says why not. One that appears while the guest is
// frozen begins frozen: nothing may write to the guest.
func (g *Guest) add(d *device) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.judge(d.id, d.target); err != nil {
		return err
	}
	if g.gated {
		d.Gate()
	}
	if g.frozen {
		d.Freeze()
	}
	g.devs = append(g.devs, d)
	slices.SortFunc(g.devs, byHandle)
	return nil
}

func (g *Guest) remove(d *device) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := slices.Index(g.devs, d); i >= 0 {
		g.devs = slices.Delete(g.devs, i, i+1)
		if g.frozen {
			d.Thaw() // its end must not wait for the session
		}
	}
}

func (g *Guest) link(d *device, ch []blkif.QueueChannel, connect func([]blkif.QueueChannel) error) error {
	if err := connect(ch); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	d.refs, d.linked = refsOf(ch), true
	return nil
}

func (g *Guest) unlink(d *device) {
	g.mu.Lock()
	defer g.mu.Unlock()
	d.refs, d.linked = nil, false
}

// Freeze is primary.Disks'. What a session left frozen, because its epoch is not
// acknowledged, the next one finds so: a device's Freeze does not nest.
func (g *Guest) Freeze() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.frozen {
		return
	}
	g.frozen = true
	for _, d := range g.devs {
		d.Freeze()
	}
}

// Thaw is primary.Disks'.
func (g *Guest) Thaw() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.frozen {
		return
	}
	g.frozen = false
	for _, d := range g.devs {
		d.Thaw()
	}
}

// Fix is primary.Disks'.
func (g *Guest) Fix() (map[string]string, error) {
	ends, err := g.server.backEnds(g.dom)
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fixed = served(ends, g.devs)
	targets := map[string]string{}
	for _, d := range g.fixed {
		targets[d.dev] = d.target
	}
	return targets, nil
}

// judge says why a disk is not one of the guest's. It is called with g.mu held.
func (g *Guest) judge(id xenbus.ID, target string) error {
	if disk, ok := g.fixed[id.Handle]; g.fixed != nil && (!ok || disk.target != target) {
		return errors.New("the guest is protected, and the copy of it does not know of this disk: detach it, and attach it before kemari protect")
	}
	return nil
}

// takes is judge before the disk is opened, for the reason that counts most. The
// set may be fixed after that, but before it is added.
func (g *Guest) takes(d xenbus.Disk) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.judge(d.ID, d.Target)
}

// Gate is primary.Disks'.
func (g *Guest) Gate() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.gated = true
	for _, d := range g.devs {
		d.Gate()
	}
}

// Ungate is primary.Disks'.
func (g *Guest) Ungate() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.gated, g.fixed = false, nil
	for _, d := range g.devs {
		d.Ungate()
	}
}

// HasOutput is primary.Disks'. Without a device it was something else that
// the guest had to say.
func (g *Guest) HasOutput() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	linked := false
	for _, d := range g.devs {
		if d.HasOutput() {
			return true
		}
		linked = linked || d.linked
	}
	return !linked
}

// Rearm is primary.Disks'.
func (g *Guest) Rearm() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, d := range g.devs {
		d.Rearm()
	}
}

// Capture is primary.Disks'.
func (g *Guest) Capture() ([]stream.Ring, []abi.GrantRef) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seen, g.rings, g.refs = g.seen[:0], g.rings[:0], g.refs[:0]
	for _, d := range g.devs {
		i := len(g.seen)
		if i == len(g.at) {
			g.at = append(g.at, nil)
		}
		g.seen = append(g.seen, d)
		g.at[i] = d.Capture(g.at[i][:0])
		for q, at := range g.at[i] {
			g.rings = append(g.rings, stream.Ring{
				Class: stream.RingVBD, Queue: uint16(q), DevID: d.id.Handle, RspProd: at.RspProd, ReqProd: at.ReqProd,
			})
		}
		g.refs = append(g.refs, d.refs...)
	}
	return g.rings, g.refs
}

// Commit is primary.Disks'.
func (g *Guest) Commit() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var errs []error
	for i, d := range g.seen {
		errs = append(errs, d.Commit(g.at[i]))
	}
	return errors.Join(errs...)
}

// Close is primary.Disks'. The front ends are not told: their domain is about
// to be destroyed.
func (g *Guest) Close() error {
	g.mu.Lock()
	devs := slices.Clone(g.devs)
	g.closed = true
	g.mu.Unlock()
	var errs []error
	for _, d := range devs {
		errs = append(errs, d.Disconnect())
	}
	return errors.Join(errs...)
}

// Recover takes up the disks that a daemon before this one served, and says why one
// of them cannot be. It may be tried again.
func (g *Guest) Recover() error {
	ends, err := g.server.backEnds(g.dom)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range ends {
		if e.state == abi.XenbusConnected {
			errs = append(errs, g.server.bus.Recover(e.ID))
		}
	}
	return errors.Join(errs...)
}
