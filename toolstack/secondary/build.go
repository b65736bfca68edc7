// SPDX-License-Identifier: Apache-2.0

package secondary

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/kemari-ft/kemari/toolstack/replica"
	"github.com/kemari-ft/kemari/toolstack/shell"
	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/toolstack/xsreplica"
	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/kemariop"
	"github.com/kemari-ft/kemari/xen/xenstore"
)

// buildTime bounds a run of xl restore.
const buildTime = 2 * time.Minute

// buildShell makes the shell that a primary describes. Nothing that comes from
// there is taken on trust: it reaches xl as root.
func (r *Receiver) buildShell(s *stream.Shell) error {
	r.dropShell()
	if err := r.destroyShell(); err != nil {
		return err
	}
	desc, guest, err := shell.DecodeDescription(s.JSON)
	if err != nil {
		return err
	}
	switch {
	case desc.DomID != r.domid:
		return fmt.Errorf("the guest is described with domid %d, HELLO has %d", uint16(desc.DomID), uint16(r.domid))
	case guest.Config.UUID() != r.cfg.Guest.String():
		return fmt.Errorf("the guest is described with UUID %s, HELLO has %s", guest.Config.UUID(), r.cfg.Guest)
	case uint32(guest.Config.VCPUs()) != s.VCPUs:
		return fmt.Errorf("the guest is described with %d vCPUs, SHELL has %d", guest.Config.VCPUs(), s.VCPUs)
	}
	err = errors.Join(
		r.cfg.Disks.Check(guest.Config.Disks()),
		fitTSC(guest, r.cfg.Host.Identity.TSCkHz),
		r.cfg.Host.Free(guest.DomID, guest.Config.Name(), guest.Config.ShellName()),
	)
	if err != nil {
		// Too little memory is a reason only beside others, before xl has tried.
		return errors.Join(err, r.cfg.Host.Room(s.MemoryPages))
	}
	ctx, cancel := context.WithTimeout(r.ctx, buildTime)
	defer cancel()
	start := time.Now()
	r.desc, r.guest = desc, guest
	for _, file := range guest.Config.HostFiles() {
		// Better said today than at the first reboot after a failover.
		if _, err := os.Stat(file); err != nil {
			r.log.Warn("the guest could not reboot on this host", r.who("error", err)...)
		}
	}
	if err := r.cfg.Host.Tools.Create(ctx, guest); err != nil {
		return errors.Join(err, r.cfg.Host.Room(s.MemoryPages))
	}
	r.log.Info("shell made", r.who("domid", uint16(guest.DomID), "took", time.Since(start))...)
	if r.op, err = kemariop.New(r.cfg.Host.Hypercalls, guest.DomID); err != nil {
		return err
	}
	if r.shell, err = OpenShell(r.op, r.cfg.Host.Memory, r.cfg.Host.Ctl); err != nil {
		return err
	}
	r.shell.Keep(desc)
	jobs := make(chan job, 2)
	r.apply, r.nodes = jobs, nil
	sh := r.shell
	r.helpers.Go(func() { r.applyAll(sh, guest.DomID, jobs) })
	return nil
}

// job is what is done to the shell once the secondary has acknowledged it.
type job struct {
	epoch *stream.Epoch // nil: its memory is in the shell already
	nodes []byte        // xenstore's part, nil: as before
}

// enqueue gives the applier something to do.
func (r *Receiver) enqueue(j job) {
	r.applied.Add(1)
	r.apply <- j
}

// applyAll writes acknowledged epochs to the shell while the next ones arrive.
func (r *Receiver) applyAll(sh *Shell, dom abi.DomID, jobs <-chan job) {
	for j := range jobs {
		if j.nodes != nil {
			if err := r.applyNodes(dom, j.nodes); err != nil {
				r.log.Warn("xenstore nodes are not applied before activation", r.who("error", err)...)
			}
		}
		if j.epoch == nil {
			r.applied.Done()
			continue
		}
		generation, number := j.epoch.Generation, j.epoch.Number
		err := sh.ApplyEpoch(j.epoch)
		j.epoch.Release()
		r.applied.Done()
		if err != nil {
			r.post(replica.ShellFailed{Err: err})
		} else {
			r.post(replica.EpochApplied{Generation: generation, Epoch: number})
		}
	}
}

// applyNodes gives the shell the guest's nodes, but for those of its back
// ends: nobody acts on them before the guest runs, and later it would cost
// time.
func (r *Receiver) applyNodes(dom abi.DomID, encoded []byte) error {
	r.nodes = nil
	st, err := xsreplica.Decode(encoded, dom)
	if err != nil {
		return err
	}
	front, _ := split(st.Nodes)
	err = r.cfg.Host.Store.Transaction(func(tx *xenstore.Tx) error { return xsreplica.Apply(tx, dom, front) })
	if err == nil {
		r.nodes = encoded
	}
	return err
}

// dropShell unmaps the shell once nobody writes to it any more.
func (r *Receiver) dropShell() {
	if r.shell == nil {
		return
	}
	r.applied.Wait()
	close(r.apply)
	err := errors.Join(r.shell.Close(), r.op.Close())
	if err != nil {
		r.log.Error("unmapping the shell", r.who("error", err)...)
	}
	r.shell, r.op, r.apply = nil, nil, nil
}

// destroyShell destroys the domain that is the shell, also one that a daemon
// before this one has left.
func (r *Receiver) destroyShell() error {
	dom, err := FindShell(r.cfg.Host, r.cfg.Guest)
	if err != nil || dom == 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.ctx), buildTime)
	defer cancel()
	if err := r.cfg.Host.Tools.Destroy(ctx, dom); err != nil {
		return err
	}
	// libxl counts in seconds how long ago a domid was in use, also with
	// LIBXL_DOMID_REUSE_TIMEOUT=0: see libxl__is_domid_recent().
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second + 100*time.Millisecond)))
	return nil
}

func (r *Receiver) closeAll() {
	r.cancel()
	r.hangup()
	r.pulse.Stop()
	r.dropShell()
}
