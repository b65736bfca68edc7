// SPDX-License-Identifier: Apache-2.0

package blkif

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/kemari-ft/kemari/backend/gate"
	"github.com/kemari-ft/kemari/backend/journal"
	"github.com/kemari-ft/kemari/backend/store"
	"github.com/kemari-ft/kemari/xen/abi"
)

// Implementation constants.
const (
	// MaxQueues is the multi-queue-max-queues offered.
	MaxQueues = 4
	// MaxRingOrder is the max-ring-page-order offered, as in blkback.
	MaxRingOrder = 4

	defaultWorkers = 16
)

var ringConfig = gate.Config{SlotSize: slotSize, RspSize: rspSize, Effect: effect}

// Config is what a device is made of.
type Config struct {
	Dom      abi.DomID // the guest
	ID       uint32    // virtual-device
	Store    store.Store
	ReadOnly bool
	Grants   Grants
	Events   Events
	Journal  string // path of the request journal, on a tmpfs
	Workers  int    // requests in work at a time; 0 means 16

	// NeedSync is called when a request waits that only a new sync can let
	// pass. It must not block. Nil if the gate is never closed.
	NeedSync func()
	// Report receives what went wrong with single requests; each was answered
	// with an error. It must not block.
	Report func(error)
	// Failed is called once when the device can no longer be served, from a
	// goroutine of its own.
	Failed func(error)
}

// QueueChannel is one ring as the front end offers it.
type QueueChannel struct {
	Refs []abi.GrantRef // a power of two, at most 1<<MaxRingOrder
	Port abi.Port       // the front end's end
}

// Device is one virtual disk.
type Device struct {
	cfg Config

	// freeze: see the package comment.
	freeze sync.RWMutex

	mu     sync.Mutex // connecting and disconnecting
	link   atomic.Pointer[link]
	broken sync.Once

	gated    atomic.Bool          // between Gate and Ungate
	captured atomic.Pointer[link] // what the newest Capture saw
}

// link is a connection to a front end.
type link struct {
	queues  []*queue
	journal *journal.Journal
	work    chan *request
	stop    chan struct{}
	loops   sync.WaitGroup
	workers sync.WaitGroup
}

// NewDevice makes a device that is not connected.
func NewDevice(c Config) (*Device, error) {
	if c.Store.Size()%sectorSize != 0 || c.Store.Size() == 0 {
		return nil, fmt.Errorf("disk %d of %s: a size of %d bytes is not a number of sectors", c.ID, c.Dom, c.Store.Size())
	}
	if c.Workers == 0 {
		c.Workers = defaultWorkers
	}
	return &Device{cfg: c}, nil
}

// Info is what the front end is told about a disk.
type Info struct {
	Sectors    uint64 // of 512 bytes
	SectorSize uint32
	ReadOnly   bool
}

// Info describes the disk.
func (d *Device) Info() Info {
	return Info{
		Sectors:    uint64(d.cfg.Store.Size()) >> sectorShift,
		SectorSize: uint32(d.cfg.Store.SectorSize()),
		ReadOnly:   d.cfg.ReadOnly,
	}
}

// errf says which device an error belongs to.
func (d *Device) errf(format string, a ...any) error {
	return fmt.Errorf("disk %d of %s: %w", d.cfg.ID, d.cfg.Dom, fmt.Errorf(format, a...))
}

// fail ends the service of the device: nothing is taken from any ring any
// more.
func (d *Device) fail(err error) {
	d.broken.Do(func() {
		if d.cfg.Failed != nil {
			go d.cfg.Failed(d.errf("%w; the device is out of service", err))
		}
	})
}

func (d *Device) report(err error) {
	if d.cfg.Report != nil {
		d.cfg.Report(err)
	}
}

// Event tells the device that a port of the Events is pending. It says whether
// the port is one of its own; if so, the device unmasks it when it has looked.
func (d *Device) Event(port abi.Port) bool {
	l := d.link.Load()
	if l == nil {
		return false
	}
	for _, q := range l.queues {
		if q.port == port {
			q.pending.Store(true)
			q.kick()
			return true
		}
	}
	return false
}

// Disconnect stops taking requests, lets those in work end, and gives up rings
// and ports. The journal goes with them: the front end is closing or gone. On
// a frozen device it waits for Thaw.
func (d *Device) Disconnect() error { return d.disconnect((*journal.Journal).Remove) }

// Abandon is Disconnect for a daemon that ends while the guest goes on: the
// journal stays, for Recover.
func (d *Device) Abandon() error { return d.disconnect((*journal.Journal).Close) }

func (d *Device) disconnect(closeJournal func(*journal.Journal) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.link.Load()
	if l == nil {
		return nil
	}
	close(l.stop)
	l.loops.Wait()
	close(l.work)
	l.workers.Wait()
	// From here on nobody is between Freeze and Thaw and finds the queues.
	d.freeze.Lock()
	defer d.freeze.Unlock()
	d.link.Store(nil)
	err := closeJournal(l.journal)
	for _, q := range l.queues {
		err = errors.Join(err, q.release())
	}
	if err != nil {
		return d.errf("disconnecting: %w", err)
	}
	return nil
}

// Close disconnects the device and closes its store.
func (d *Device) Close() error {
	return errors.Join(d.Disconnect(), d.cfg.Store.Close())
}
