// SPDX-License-Identifier: Apache-2.0

// Package host holds what the sessions of all guests share on one host: the
// handles of Xen's facilities, what this host says of itself to a peer, the
// records on disk, the fence command, and the second heartbeat path.
package host

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/google/uuid"
	"github.com/kemari-ft/kemari/toolstack/config"
	"github.com/kemari-ft/kemari/toolstack/lease"
	"github.com/kemari-ft/kemari/toolstack/shell"
	"github.com/kemari-ft/kemari/xen/domctl"
	"github.com/kemari-ft/kemari/xen/foreignmem"
	"github.com/kemari-ft/kemari/xen/privcmd"
	"github.com/kemari-ft/kemari/xen/xenstore"
)

// StateDir holds the records of all guests that were ever protected.
const StateDir = "/var/lib/kemari"

// Log is where sessions tell what happens; args are pairs of a key and a
// value. A hclog.Logger is one.
type Log interface {
	Debug(msg string, args ...any)
	Info(msg string, args ...any)
	Warn(msg string, args ...any)
	Error(msg string, args ...any)
}

// Host is one host. Everything in it may be used concurrently.
type Host struct {
	Config *config.Host
	Log    Log

	Hypercalls *privcmd.Handle
	Ctl        *domctl.Client
	Memory     *foreignmem.Handle
	Store      *xenstore.Client
	Tools      shell.Tools

	Identity Identity
	Records  Records
	Second   *Second // nil: there is no second path
}

// Open opens all facilities of this host.
func Open(cfg *config.Host, log Log) (*Host, error) {
	h := &Host{Config: cfg, Log: log, Records: Records{Dir: StateDir}}
	if err := h.open(); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

func (h *Host) open() (err error) {
	if h.Hypercalls, err = privcmd.Open(); err != nil {
		return err
	}
	if h.Ctl, err = domctl.New(h.Hypercalls); err != nil {
		return err
	}
	if h.Memory, err = foreignmem.Open(); err != nil {
		return err
	}
	if h.Store, err = xenstore.Dial(""); err != nil {
		return err
	}
	if h.Identity, err = identify(h.Ctl, filepath.Join(StateDir, "host-uuid")); err != nil {
		return err
	}
	if h.Config.HeartbeatSecond != "" {
		if h.Second, err = OpenSecond(h.Config.HeartbeatSecond); err != nil {
			return err
		}
	}
	return nil
}

// Close closes them. No session may be left.
func (h *Host) Close() error {
	var errs []error
	if h.Second != nil {
		errs = append(errs, h.Second.Close())
	}
	if h.Store != nil {
		errs = append(errs, h.Store.Close())
	}
	if h.Memory != nil {
		errs = append(errs, h.Memory.Close())
	}
	if h.Ctl != nil {
		errs = append(errs, h.Ctl.Close())
	}
	if h.Hypercalls != nil {
		errs = append(errs, h.Hypercalls.Close())
	}
	return errors.Join(errs...)
}

// Timing is the failure detector's, from the host's configuration.
func (h *Host) Timing() lease.Timing {
	t := lease.Timing{
		Interval: max(h.Config.HeartbeatInterval, lease.TickLength),
		Missed:   h.Config.HeartbeatMisses,
		Margin:   lease.DefaultTiming.Margin,
	}
	silent := t.Margin
	for range t.Missed {
		silent += t.Interval
	}
	t.Grace = max(h.Config.DetachWait, silent)
	return t
}

// Guest is the prefix of messages about a guest.
func Guest(name string, id uuid.UUID) string {
	if name == "" {
		return "guest " + id.String()
	}
	return fmt.Sprintf("guest %s (%s)", name, id)
}
