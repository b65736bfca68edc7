// SPDX-License-Identifier: Apache-2.0

package xenbus

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/kemari-ft/kemari/backend/blkif"
	"github.com/kemari-ft/kemari/backend/gate"
	"github.com/kemari-ft/kemari/xen/abi"
)

type channel = blkif.QueueChannel

// carried are the back end's keys that another host may have written: what the
// front end negotiated with, and libxl's description of the disk. Not among
// them is what this host acts on, such as the path of a script.
var carried = map[string]bool{
	"removable": true, "bootable": true, "dev": true, "type": true, "mode": true,
	"device-type": true, "discard-enable": true, "specification": true,
	"max-ring-page-order": true, "multi-queue-max-queues": true,
	"feature-max-indirect-segments": true, "feature-persistent": true,
	"feature-flush-cache": true, "feature-barrier": true, "feature-discard": true,
	"discard-granularity": true, "discard-alignment": true, "discard-secure": true,
	"sectors": true, "sector-size": true, "physical-sector-size": true, "info": true,
}

// IsCarried: may another host have written this key of a back end?
func IsCarried(key string) bool { return carried[key] }

// Attach takes over a front end that stays connected: it creates the back
// end's nodes, and libxl's own, from the keys carried over from the other host
// and what this host says about the disk, then attaches dev to the rings at the
// committed capture. The front end's nodes are there already; the guest does
// not run yet. The kernel and libxl leave a back end alone that appears with
// state=4. The server owns dev from the call on, and closes it if it fails.
func (s *Server) Attach(disk Disk, dev Device, keys map[string]string, at []gate.Indices) error {
	if err := checkCarried(disk.ID, dev, keys); err != nil {
		return errors.Join(err, dev.Close())
	}
	id := disk.ID
	s.mu.Lock()
	if s.devices[id] != nil {
		s.mu.Unlock()
		return errors.Join(fmt.Errorf("%s is served here already", id), dev.Close())
	}
	d := s.add(id)
	// Before the goroutine can look: to it the nodes are not news.
	d.mu.Lock()
	s.start(d)
	s.mu.Unlock()
	defer d.poke()
	defer d.mu.Unlock()
	d.disk, d.open = disk, dev

	ch, err := readChannels(s.cfg.Store, id.frontend())
	if err == nil {
		err = dev.Attach(ch, at)
	}
	if err == nil {
		d.connected = true
		err = s.cfg.Store.Transaction(func(tx Tx) error { return createNodes(tx, disk, keys) })
	}
	if err != nil {
		// Without nodes the goroutine forgets the device and closes it.
		return errors.Join(fmt.Errorf("%s: attaching: %w", id, err), d.disconnect())
	}
	return nil
}

// checkCarried judges what the other host sent about a disk.
func checkCarried(id ID, dev Device, keys map[string]string) error {
	for k, v := range keys {
		if !carried[k] || len(v) > 64 || strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r > '~' }) {
			return fmt.Errorf("%s: the other host sent the key %.64q = %.64q, which is not one to carry over", id, k, v)
		}
	}
	if got, want := keys["sectors"], strconv.FormatUint(dev.Info().Sectors, 10); got != want {
		return fmt.Errorf("%s: it has %s sectors on this host and %q on the other", id, want, got)
	}
	return nil
}

// createNodes writes what libxl__device_generic_add (libxl_device.c) and a
// completed hand-shake would have left.
func createNodes(tx Tx, disk Disk, keys map[string]string) error {
	id := disk.ID
	pairs := []pair{
		{"frontend", id.frontend()},
		{"frontend-id", strconv.Itoa(int(id.Dom))},
		{"params", RawParams + disk.Target},
		{"script", disk.Script},
		{"online", "1"},
	}
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		pairs = append(pairs, pair{k, keys[k]})
	}
	state := []pair{
		{"hotplug-status", "connected"},
		{"state", strconv.Itoa(int(abi.XenbusConnected))},
	}
	if err := tx.Share(id.backend(), id.Dom); err != nil {
		return err
	}
	if err := writeAll(tx, id.backend(), append(pairs, state...)); err != nil {
		return err
	}
	libxl := fmt.Sprintf("/libxl/%d/device/vbd/%d", uint16(id.Dom), id.Handle)
	return writeAll(tx, libxl, append(pairs, pair{"backend", id.backend()}))
}
