// SPDX-License-Identifier: Apache-2.0

package xenbus

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"sync"

	"github.com/kemari-ft/kemari/xen/abi"
)

// device is one back end.
type device struct {
	server *Server
	id     ID
	wake   chan struct{}

	mu        sync.Mutex // protects what follows
	disk      Disk
	open      Device // nil before offer and after forget
	refused   bool
	connected bool
}

func (d *device) poke() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// run follows both ends' nodes until the back end's are gone.
func (d *device) run(ctx context.Context) {
	front, stop, err := d.server.cfg.Store.Watch(path.Join(d.id.frontend(), "state"))
	if err != nil {
		d.server.report(d.id, fmt.Errorf("watching its front end: %w", err))
		d.server.remove(d)
		return
	}
	defer stop()
	for {
		select {
		case <-ctx.Done():
			d.abandon()
			return
		case <-d.wake:
		case _, ok := <-front:
			if !ok {
				front = nil // Run ends too
			}
		}
		gone, err := d.settle()
		d.server.report(d.id, err)
		if gone {
			return
		}
	}
}

func (d *device) abandon() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open != nil {
		if err := d.open.Abandon(); err != nil {
			d.server.report(d.id, err)
		}
	}
}

func (s *Server) report(id ID, err error) {
	if err != nil {
		s.cfg.Report(fmt.Errorf("%s: %w", id, err))
	}
}

// settle acts until there is nothing to do, and says whether the device is no
// more.
func (d *device) settle() (gone bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.settleLocked()
}

// again is settle for a device whose rings could not be taken up, as if that had not
// been tried. One that is connected and still not served then is an error.
func (d *device) again() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, err := d.look()
	if err != nil {
		return err
	}
	if v.backend == abi.XenbusConnected {
		d.refused = false
	}
	gone, err := d.settleLocked()
	if gone {
		d.poke() // its goroutine ends, too
	}
	if gone || err != nil {
		return err
	}
	if v, err = d.look(); err != nil {
		return err
	}
	if v.backend == abi.XenbusConnected && !v.connected {
		return fmt.Errorf("its rings can not be taken up again while its front end is in state %s", v.frontend)
	}
	return nil
}

// settleLocked is settle with d.mu held.
func (d *device) settleLocked() (gone bool, err error) {
	// Each action changes the state it was decided on; the bound is for a
	// store that does not keep what it is told.
	for range 8 {
		v, err := d.look()
		if err != nil {
			return false, err
		}
		a := decide(v)
		if a == nothing {
			return false, nil
		}
		err = d.act(a)
		if a == forget {
			d.server.remove(d)
			return true, err
		}
		if err != nil {
			return false, err
		}
	}
	return false, nil
}

func (d *device) look() (v view, err error) {
	st := d.server.cfg.Store
	if v.backend, err = readState(st, d.id.backend()); err != nil {
		return v, err
	}
	if v.frontend, err = readState(st, d.id.frontend()); err != nil {
		return v, err
	}
	online, err := st.Read(path.Join(d.id.backend(), "online"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return v, err
	}
	v.online = online == "1"
	v.alive = d.server.cfg.Alive(d.id.Dom)
	v.refused, v.connected = d.refused, d.connected
	return v, nil
}

func (d *device) act(a action) error {
	switch a {
	case offer:
		if err := d.openDisk(); err != nil {
			return d.refuse(err)
		}
		d.refused = false
		return d.setState(abi.XenbusInitWait, features())
	case connect:
		return d.connect()
	case recover_:
		return d.recover()
	case letGo:
		return d.disconnect()
	case closing:
		return d.setState(abi.XenbusClosing, nil)
	case closed:
		return errors.Join(d.disconnect(), d.setState(abi.XenbusClosed, nil))
	case forget:
		return d.close()
	}
	return nil
}

// openDisk opens the disk unless it is open.
func (d *device) openDisk() error {
	if d.open != nil {
		return nil
	}
	disk, err := readDisk(d.server.cfg.Store, d.id)
	if err != nil {
		return err
	}
	open, err := d.server.cfg.Open(disk)
	if err != nil {
		return err
	}
	d.disk, d.open = disk, open
	return nil
}

// refuse tells the hotplug script, and through it the operator, why.
func (d *device) refuse(cause error) error {
	d.refused = true
	err := d.setState(abi.XenbusInitWait, []pair{
		{"hotplug-error", cause.Error()},
		{"hotplug-status", "error"},
	})
	return errors.Join(cause, err)
}

// connect takes up the rings a front end offers. One that can not be served is
// told to close.
func (d *device) connect() error {
	if err := d.takeUp(Device.Connect); err != nil {
		return errors.Join(err, d.setState(abi.XenbusClosing, nil))
	}
	return d.setState(abi.XenbusConnected, properties(d.open.Info(), d.disk.Discard))
}

// recover takes up the rings a process before this one served. The front end
// does not notice. If it can not be done, the guest's requests go on waiting:
// that can be undone, an error can not.
func (d *device) recover() error {
	if err := d.takeUp(Device.Recover); err != nil {
		d.refused = true
		return fmt.Errorf("its rings can not be taken up again, the guest waits: %w", err)
	}
	return nil
}

func (d *device) takeUp(how func(Device, []channel) error) error {
	if err := d.openDisk(); err != nil {
		return err
	}
	ch, err := readChannels(d.server.cfg.Store, d.id.frontend())
	if err != nil {
		return err
	}
	if err := how(d.open, ch); err != nil {
		return err
	}
	d.connected = true
	return nil
}

func (d *device) disconnect() error {
	if !d.connected {
		return nil
	}
	d.connected = false
	return d.open.Disconnect()
}

func (d *device) close() error {
	if d.open == nil {
		return nil
	}
	open := d.open
	d.open, d.connected = nil, false
	return open.Close()
}

// setState writes keys and a new state, if the back end's nodes still exist:
// libxl removes them when it has waited long enough, and what is written
// afterwards would stay for ever.
func (d *device) setState(to abi.XenbusState, keys []pair) error {
	dir := d.id.backend()
	err := d.server.cfg.Store.Transaction(func(tx Tx) error {
		if _, err := tx.Read(path.Join(dir, "state")); err != nil {
			return err
		}
		if err := writeAll(tx, dir, keys); err != nil {
			return err
		}
		return tx.Write(path.Join(dir, "state"), strconv.Itoa(int(to)))
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the next look finds it gone
	}
	if err != nil {
		return fmt.Errorf("changing the back end's state to %s: %w", to, err)
	}
	return nil
}
