// SPDX-License-Identifier: Apache-2.0

// Package daemon runs the sessions of all guests of one host: those that it
// protects, and those whose copies it holds.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/kemari-ft/kemari/toolstack/control"
	"github.com/kemari-ft/kemari/toolstack/disks"
	"github.com/kemari-ft/kemari/toolstack/host"
	"github.com/kemari-ft/kemari/toolstack/primary"
	"github.com/kemari-ft/kemari/toolstack/secondary"
	"github.com/kemari-ft/kemari/toolstack/transport"
)

// runDir holds what must not outlive the host.
const runDir = "/run/kemari"

// Daemon is kemarid.
type Daemon struct {
	host  *host.Host
	cred  *transport.Credentials // nil: none could be loaded, and credErr says why
	noTLS error
	disks *disks.Server
	fatal chan error

	mu          sync.Mutex
	primaries   map[uuid.UUID]*guarded
	secondaries map[uuid.UUID]*secondary.Receiver
	prepared    map[uuid.UUID]host.Policy
	activations map[uuid.UUID]secondary.Activation
	stopping    bool
}

// guarded is a guest that this host protects.
type guarded struct {
	session *primary.Session
	policy  host.Policy
	before  error // why the session before this one broke off, nil if there was none
	// unwanted: an operator has ended the protection. Protected by Daemon.mu.
	unwanted bool
}

// New makes a daemon of a host.
func New(h *host.Host) (*Daemon, error) {
	d := &Daemon{
		host: h, fatal: make(chan error, 1),
		primaries:   map[uuid.UUID]*guarded{},
		secondaries: map[uuid.UUID]*secondary.Receiver{},
		prepared:    map[uuid.UUID]host.Policy{},
		activations: map[uuid.UUID]secondary.Activation{},
	}
	d.cred, d.noTLS = transport.LoadCredentials(h.Config.Cert, h.Config.Key, h.Config.PeerCert)
	var err error
	d.disks, err = disks.Open(h, d.mayOpen)
	return d, err
}

// Run serves until ctx ends. ready is called when requests are taken.
func (d *Daemon) Run(ctx context.Context, ready func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var work sync.WaitGroup
	defer d.settle(&work)

	deaths, err := d.host.Store.Watch("@releaseDomain")
	if err != nil {
		return err
	}
	defer deaths.Close()
	work.Go(func() {
		for range deaths.C {
			d.look()
		}
	})
	if err := d.adopt(); err != nil {
		return err
	}
	defer d.stop()
	// After adopt: disks of guests whose last epoch was not sent have to
	// stand still.
	work.Go(func() {
		if err := d.disks.Run(ctx); err != nil {
			d.fail(fmt.Errorf("serving disks: %w", err))
		}
	})

	var listeners []net.Listener
	defer func() {
		for _, l := range listeners {
			l.Close()
		}
	}()
	if d.host.Config.Listen.Transport != "" {
		t, err := d.transport(d.host.Config.Listen.String())
		if err != nil {
			return err
		}
		l, err := t.Listen()
		if err != nil {
			return err
		}
		listeners = append(listeners, l)
		work.Go(func() { d.acceptPeers(ctx, l) })
		d.host.Log.Info("taking guests of the peer", "at", t.String())
	}
	l, err := control.Listen(control.Socket)
	if err != nil {
		return err
	}
	listeners = append(listeners, l)
	work.Go(func() {
		if err := control.Serve(l, d.Answer); err != nil {
			d.fail(fmt.Errorf("control socket: %w", err))
		}
	})
	ready()
	select {
	case <-ctx.Done():
		return nil
	case err := <-d.fatal:
		return err
	case <-d.host.Store.Done():
		return fmt.Errorf("xenstored: %w", d.host.Store.Err())
	}
}

// settleTime bounds how long the end of everything is waited for. Disks of a
// guest whose epoch is not acknowledged stand still, and do not end: for them
// the daemon's death is like any other one.
const settleTime = time.Second

func (d *Daemon) settle(work *sync.WaitGroup) {
	done := make(chan struct{})
	go func() {
		work.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(settleTime):
		d.host.Log.Warn("not everything has ended in time; the next kemarid takes it up")
	}
}

// fail ends the daemon: its service is restarted, and takes up what is there.
func (d *Daemon) fail(err error) {
	select {
	case d.fatal <- err:
	default:
	}
}

// look makes every session look whether its domain lives.
func (d *Daemon) look() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, g := range d.primaries {
		go g.session.Look()
	}
	for _, r := range d.secondaries {
		go r.Look()
	}
}

// stop ends all sessions and leaves the guests as they are.
func (d *Daemon) stop() {
	d.mu.Lock()
	d.stopping = true
	var ends []func()
	for _, g := range d.primaries {
		ends = append(ends, g.session.Stop)
	}
	for _, r := range d.secondaries {
		ends = append(ends, r.Stop)
	}
	d.mu.Unlock()
	var all sync.WaitGroup
	for _, end := range ends {
		all.Go(end)
	}
	all.Wait()
}

func (d *Daemon) transport(uri string) (transport.Transport, error) {
	t, err := transport.New(uri, d.cred)
	if err != nil && d.noTLS != nil {
		err = errors.Join(err, d.noTLS)
	}
	return t, err
}

// marker is a file that says that a guest was protected since this host was
// booted.
func marker(guest uuid.UUID) string { return filepath.Join(runDir, "guests", guest.String()) }

func mark(guest uuid.UUID) error {
	if err := os.MkdirAll(filepath.Dir(marker(guest)), 0o700); err != nil {
		return err
	}
	return os.WriteFile(marker(guest), nil, 0o600)
}

// pollTime is how often somebody who waits is told of progress.
const pollTime = 100 * time.Millisecond
