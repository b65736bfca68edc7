// SPDX-License-Identifier: Apache-2.0

package secondary

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/kemari-ft/kemari/toolstack/lease"
	"github.com/kemari-ft/kemari/toolstack/replica"
	"github.com/kemari-ft/kemari/toolstack/shell/xlstream"
	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/toolstack/xsreplica"
	"github.com/kemari-ft/kemari/xen/abi"
)

// Disks makes the back ends of the guest's disks.
type Disks interface {
	// Check says, with every reason, why this host cannot serve the disks.
	Check(disks []xlstream.Disk) error
	// Attach takes over the front ends, which are connected already: back
	// holds the nodes of the other host's back ends.
	Attach(guest uuid.UUID, dom abi.DomID, disks []xlstream.Disk, back []xsreplica.Node, rings []stream.Ring) error
}

type noDisks struct{}

func (noDisks) Check(disks []xlstream.Disk) error {
	if len(disks) != 0 {
		return fmt.Errorf("the guest has %d disks; this host serves none", len(disks))
	}
	return nil
}

func (noDisks) Attach(uuid.UUID, abi.DomID, []xlstream.Disk, []xsreplica.Node, []stream.Ring) error {
	return nil
}

// Activation is what became of a copy, and how long it took. The durations
// follow each other.
type Activation struct {
	Guest      uuid.UUID     `json:"guest"`
	Name       string        `json:"name"`
	DomID      abi.DomID     `json:"domid"`
	Generation uint64        `json:"generation"`
	Epoch      uint64        `json:"epoch"`
	At         time.Time     `json:"at"`         // of the decision
	Applied    time.Duration `json:"applied_ns"` // last epoch in the shell
	State      time.Duration `json:"state_ns"`
	Store      time.Duration `json:"store_ns"`
	Disks      time.Duration `json:"disks_ns"`
	Watches    time.Duration `json:"watches_ns"`
	Resume     time.Duration `json:"resume_ns"`
	Total      time.Duration `json:"total_ns"` // until the guest ran
	Toolstack  time.Duration `json:"toolstack_ns"`
}

// replayTime bounds the conversation with xenstored in the guest's name, and
// resetTime the end of one that failed.
const (
	replayTime = 5 * time.Second
	resetTime  = time.Second
)

// activate turns the shell into the guest. The record says already that it
// runs here: whatever fails from now on, no other host will run it.
func (r *Receiver) activate(a replica.Activate) error {
	act := Activation{Guest: r.cfg.Guest, Name: r.name(), DomID: r.guest.DomID, Generation: a.Generation, Epoch: a.Epoch, At: time.Now()}
	last := act.At
	mark := func(part *time.Duration) {
		t := time.Now()
		*part = t.Sub(last)
		last = t
	}
	r.applied.Wait()
	mark(&act.Applied)
	if err := r.wake(&act, mark); err != nil {
		err = fmt.Errorf("guest %s could not be activated at epoch %d, its shell is left as it is: %w", act.Name, a.Epoch, err)
		r.log.Error("the guest is lost", r.who("error", err)...)
		return err
	}
	act.Total = last.Sub(act.At)
	r.log.Info("the guest runs here", r.who("domid", uint16(act.DomID), "generation", a.Generation, "epoch", a.Epoch, "after", act.Total)...)
	cfg, dom := r.guest.Config, r.guest.DomID
	r.dropShell()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.ctx), buildTime)
	defer cancel()
	if err := r.cfg.Host.Tools.Activate(ctx, dom, cfg); err != nil {
		// It runs, under the shell's name.
		r.log.Error("the guest could not be given its name back", r.who("error", err)...)
	}
	mark(&act.Toolstack)
	r.status.activate(act)
	if r.cfg.Activated != nil {
		r.cfg.Activated(act)
	}
	return nil
}

// wake does what the guest waits for.
func (r *Receiver) wake(act *Activation, mark func(*time.Duration)) error {
	dom, stage := r.guest.DomID, r.machine.Stage()
	if err := r.shell.Prepare(stage.Always, stage.State); err != nil {
		return err
	}
	mark(&act.State)
	st := &xsreplica.State{}
	if len(stage.Xenstore) > 0 {
		var err error
		if st, err = xsreplica.Decode(stage.Xenstore, dom); err != nil {
			return err
		}
	}
	_, back := split(st.Nodes)
	if len(stage.Xenstore) > 0 && !bytes.Equal(r.nodes, stage.Xenstore) {
		if err := r.applyNodes(dom, stage.Xenstore); err != nil {
			return err
		}
	}
	mark(&act.Store)
	if err := r.cfg.Disks.Attach(r.cfg.Guest, dom, r.guest.Config.Disks(), back, stage.Rings); err != nil {
		return err
	}
	mark(&act.Disks)
	r.replay(stage, st.Watches)
	mark(&act.Watches)
	if err := r.shell.Resume(); err != nil {
		return err
	}
	if err := r.cfg.Host.Ctl.Unpause(dom); err != nil {
		return err
	}
	mark(&act.Resume)
	return nil
}

// split separates the nodes of the back ends: they are made by who serves the
// disks here.
func split(nodes []xsreplica.Node) (front, back []xsreplica.Node) {
	for _, n := range nodes {
		if strings.HasPrefix(n.Path, "/local/domain/0/") {
			back = append(back, n)
		} else {
			front = append(front, n)
		}
	}
	return front, back
}

// replay gives xenstored the guest's watches, and the guest its store page. A
// guest without watches is worth more than none: it only misses xl shutdown.
func (r *Receiver) replay(stage *replica.Stage, watches []xsreplica.Watch) {
	page, image := r.shell.StorePage(stage.Always)
	if page == nil {
		return
	}
	port := abi.Port(0)
	if p, err := r.cfg.Host.Ctl.GetHVMParam(r.guest.DomID, abi.HVMParamStoreEvtchn); err == nil {
		port = abi.Port(p)
	}
	kick := func() error { return r.op.Deliver(port) }
	ctx, cancel := context.WithTimeout(r.ctx, replayTime)
	defer cancel()
	err := xsreplica.Replay(ctx, r.guest.DomID, page, image, watches, kick)
	if err == nil {
		return
	}
	r.log.Error("the guest goes on without its xenstore watches", r.who("error", err)...)
	ctx, cancel = context.WithTimeout(r.ctx, resetTime)
	defer cancel()
	if err := xsreplica.Reset(ctx, r.guest.DomID, page, image, kick); err != nil {
		r.log.Error("the guest may wait for xenstored in vain", r.who("error", err)...)
	}
}

// Status is what is known of a receiver.
type Status struct {
	Name       string
	Image      lease.Image
	Dropped    uint64
	Text       string // the last report
	Activation *Activation
}

type status struct {
	mu  sync.Mutex
	s   Status
	err error
}

func (st *status) note(img lease.Image, dropped uint64, name string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.s.Image, st.s.Dropped, st.s.Name = img, dropped, name
}

func (st *status) say(text string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.s.Text = text
}

func (st *status) activate(a Activation) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.s.Activation = &a
}

func (st *status) activated() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.s.Activation != nil
}

func (st *status) end(err error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.err = err
}

func (st *status) failure() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.err
}

// Status describes the receiver.
func (r *Receiver) Status() Status {
	r.status.mu.Lock()
	defer r.status.mu.Unlock()
	return r.status.s
}
