// SPDX-License-Identifier: Apache-2.0

package xenbus

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"sync"

	"github.com/kemari-ft/kemari/backend/blkif"
	"github.com/kemari-ft/kemari/backend/gate"
	"github.com/kemari-ft/kemari/xen/abi"
)

// Device is what serves a disk's rings; *blkif.Device is one.
type Device interface {
	Info() blkif.Info
	Connect([]blkif.QueueChannel) error
	Attach([]blkif.QueueChannel, []gate.Indices) error
	Recover([]blkif.QueueChannel) error
	Disconnect() error
	Abandon() error
	Close() error
}

var _ Device = (*blkif.Device)(nil)

// Config is what a Server is made of.
type Config struct {
	Store Store
	// Open decides whether a disk may be served, and opens it. Its error
	// becomes the operator's message.
	Open func(Disk) (Device, error)
	// Alive says whether a domain exists and is not dying.
	Alive func(abi.DomID) bool
	// Report receives what went wrong with single devices.
	Report func(error)
}

// Server serves all devices of the class.
type Server struct {
	cfg Config

	mu      sync.Mutex
	devices map[ID]*device
	running context.Context // set while Run runs
	tasks   sync.WaitGroup
}

// NewServer makes a Server. It does nothing before Run.
func NewServer(c Config) *Server {
	return &Server{cfg: c, devices: map[ID]*device{}}
}

// Run serves devices until ctx ends or xenstore fails. Guests whose disks are
// connected then wait for a server that recovers them.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	changes, stop, err := s.cfg.Store.Watch(Root)
	if err != nil {
		cancel()
		return fmt.Errorf("watching %s: %w", Root, err)
	}
	defer stop()
	// Xen's notice that a domain died, through xenstored: its memory stays
	// as long as we map a page of it.
	deaths, stopDeaths, err := s.cfg.Store.Watch("@releaseDomain")
	if err != nil {
		cancel()
		return fmt.Errorf("watching @releaseDomain: %w", err)
	}
	defer stopDeaths()

	s.mu.Lock()
	s.running = ctx
	for _, d := range s.devices {
		s.start(d)
	}
	s.mu.Unlock()
	defer s.tasks.Wait()
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case p, ok := <-changes:
			if !ok {
				return errors.New("the connection to xenstored has ended")
			}
			if id, ok := parseID(p); ok {
				s.poke(id)
			} else if err := s.pokeAll(); err != nil {
				return err
			}
		case _, ok := <-deaths:
			if !ok {
				return errors.New("the connection to xenstored has ended")
			}
			if err := s.pokeAll(); err != nil {
				return err
			}
		}
	}
}

// poke makes the device look at xenstore.
func (s *Server) poke(id ID) {
	s.known(id).poke()
}

// known returns a device, which is a new one if none was known of that name.
func (s *Server) known(id ID) *device {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.devices[id]
	if d == nil {
		d = s.add(id)
		s.start(d)
	}
	return d
}

// Recover takes up the rings of a device that a process before this one served, if
// that is still to be done, and says why it cannot be. It may be tried again.
func (s *Server) Recover(id ID) error {
	if err := s.known(id).again(); err != nil {
		return fmt.Errorf("%s: %w", id, err)
	}
	return nil
}

// pokeAll pokes every device known or to be found.
func (s *Server) pokeAll() error {
	s.mu.Lock()
	for _, d := range s.devices {
		d.poke()
	}
	s.mu.Unlock()
	doms, err := s.list(Root)
	if err != nil {
		return err
	}
	for _, dom := range doms {
		handles, err := s.list(path.Join(Root, dom))
		if err != nil {
			return err
		}
		for _, h := range handles {
			if id, ok := parseID(path.Join(Root, dom, h)); ok {
				s.poke(id)
			}
		}
	}
	return nil
}

func (s *Server) list(dir string) ([]string, error) {
	names, err := s.cfg.Store.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return names, err
}

// add makes the entry of a device; s.mu is held.
func (s *Server) add(id ID) *device {
	d := &device{server: s, id: id, wake: make(chan struct{}, 1)}
	s.devices[id] = d
	return d
}

// start runs the device's goroutine, once there is a Run; s.mu is held.
func (s *Server) start(d *device) {
	if s.running != nil {
		ctx := s.running
		s.tasks.Go(func() { d.run(ctx) })
	}
}

func (s *Server) remove(d *device) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.devices[d.id] == d {
		delete(s.devices, d.id)
	}
}

func (s *Server) lookup(id ID) *device {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.devices[id]
}

// Fail takes a device out of service: it is closed, and the front end is told
// to close. cause is left where Linux's xenbus_dev_fatal leaves it. A front end
// that begins anew is offered the disk again.
func (s *Server) Fail(id ID, cause error) error {
	d := s.lookup(id)
	if d == nil {
		return fmt.Errorf("%s is not served here", id)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refused = true
	err := d.close()
	note := path.Join("/local/domain/0/error", "backend/vbd3", fmt.Sprintf("%d/%d/error", uint16(id.Dom), id.Handle))
	err = errors.Join(err, s.cfg.Store.Write(note, cause.Error()))
	return errors.Join(err, d.setState(abi.XenbusClosing, nil))
}
