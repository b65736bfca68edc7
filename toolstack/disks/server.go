// SPDX-License-Identifier: Apache-2.0

// Package disks serves the disks of all guests of a host, and lends those of a
// protected guest to its session.
package disks

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/kemari-ft/kemari/backend/blkif"
	"github.com/kemari-ft/kemari/backend/store"
	"github.com/kemari-ft/kemari/backend/xenbus"
	"github.com/kemari-ft/kemari/toolstack/host"
	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/evtchn"
	"github.com/kemari-ft/kemari/xen/gntdev"
)

// journals is where the requests in work are noted: a memory file system,
// which outlives the daemon, but not the host.
const journals = "/run/kemari/journal"

// Server serves the disks of class vbd3.
type Server struct {
	host   *host.Host
	may    func(abi.DomID) error
	grants *gntdev.Device
	events *evtchn.Handle
	bus    *xenbus.Server

	mu     sync.Mutex
	guests map[abi.DomID]*Guest
}

// Open opens what serving needs. may says whether the disks of a domain may be
// opened on this host: another one may still write to them (I14).
func Open(h *host.Host, may func(abi.DomID) error) (*Server, error) {
	if err := os.MkdirAll(journals, 0o700); err != nil {
		return nil, err
	}
	s := &Server{host: h, may: may, guests: map[abi.DomID]*Guest{}}
	var err error
	if s.grants, err = gntdev.Open(); err != nil {
		return nil, err
	}
	if s.events, err = evtchn.Open(); err != nil {
		return nil, errors.Join(err, s.grants.Close())
	}
	s.bus = xenbus.NewServer(xenbus.Config{
		Store: xenbus.XenStore(h.Store),
		Open:  s.open,
		Alive: func(dom abi.DomID) bool {
			info, err := h.Ctl.DomainInfo(dom)
			return err == nil && !info.Is(abi.DomInfDying)
		},
		Report: func(err error) { h.Log.Warn("disk", "error", err) },
	})
	return s, nil
}

// Run serves until ctx ends. Guests whose disks are connected wait then for a
// server that takes them up.
func (s *Server) Run(ctx context.Context) error {
	go s.dispatch()
	err := s.bus.Run(ctx)
	if ctx.Err() != nil {
		err = nil
	}
	return errors.Join(err, s.events.Close(), s.grants.Close())
}

// dispatch gives events to the devices that they are for.
func (s *Server) dispatch() {
	var buf [64]abi.Port
	for {
		n, err := s.events.Wait(buf[:])
		if err != nil && !errors.Is(err, evtchn.ErrOverflow) {
			return // closed
		}
		for _, port := range buf[:n] {
			s.event(port)
		}
	}
}

func (s *Server) event(port abi.Port) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.guests {
		if g.event(port) {
			return
		}
	}
}

// Guest returns the disks of a domain, of which there may be none yet.
func (s *Server) Guest(dom abi.DomID) *Guest {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.guests[dom]
	if g == nil {
		g = &Guest{server: s, dom: dom}
		s.guests[dom] = g
	}
	return g
}

// Forget drops a domain that is gone, or not protected any more.
func (s *Server) Forget(dom abi.DomID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.guests[dom]; g != nil && g.idle() {
		delete(s.guests, dom)
	}
}

// open is xenbus's way to a disk.
func (s *Server) open(d xenbus.Disk) (xenbus.Device, error) {
	if err := s.may(d.Dom); err != nil {
		return nil, err
	}
	if err := s.Guest(d.Dom).takes(d); err != nil {
		return nil, err
	}
	return s.device(d)
}

// device opens a disk and adds it to its guest's.
func (s *Server) device(d xenbus.Disk) (*device, error) {
	g := s.Guest(d.Dom)
	st, err := store.Open(d.Target, store.Options{ReadOnly: d.ReadOnly})
	if err != nil {
		return nil, err
	}
	dev := &device{guest: g, id: d.ID, target: d.Target}
	dev.Device, err = blkif.NewDevice(blkif.Config{
		Dom: d.Dom, ID: d.Handle, Store: st, ReadOnly: d.ReadOnly,
		Grants: blkif.XenGrants(s.grants), Events: s.events,
		Journal:  filepath.Join(journals, fmt.Sprintf("%d-%d", uint16(d.Dom), d.Handle)),
		NeedSync: g.needSync,
		Report:   func(err error) { s.host.Log.Warn("disk", "error", err) },
		Failed: func(err error) {
			s.host.Log.Error("disk", "error", err)
			if err := s.bus.Fail(d.ID, err); err != nil {
				s.host.Log.Error("disk", "error", err)
			}
		},
	})
	if err != nil {
		return nil, errors.Join(err, st.Close())
	}
	if err := g.add(dev); err != nil {
		return nil, errors.Join(err, dev.Close())
	}
	return dev, nil
}

// device is one disk, as xenbus sees it. It remembers where its rings are.
type device struct {
	*blkif.Device
	guest  *Guest
	id     xenbus.ID
	target string

	// These are the guest's to protect.
	refs   []abi.GrantRef
	linked bool
}

func (d *device) Connect(ch []blkif.QueueChannel) error {
	return d.guest.link(d, ch, d.Device.Connect)
}

func (d *device) Recover(ch []blkif.QueueChannel) error {
	return d.guest.link(d, ch, d.Device.Recover)
}

func (d *device) Disconnect() error {
	d.guest.unlink(d)
	return d.Device.Disconnect()
}

func (d *device) Close() error {
	d.guest.remove(d)
	err := d.Device.Close()
	d.guest.server.Forget(d.id.Dom)
	return err
}

// refsOf lists the grants of all ring pages.
func refsOf(ch []blkif.QueueChannel) []abi.GrantRef {
	var refs []abi.GrantRef
	for _, c := range ch {
		refs = append(refs, c.Refs...)
	}
	return refs
}

func byHandle(a, b *device) int { return int(int64(a.id.Handle) - int64(b.id.Handle)) }
