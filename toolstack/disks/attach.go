// SPDX-License-Identifier: Apache-2.0

package disks

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/kemari-ft/kemari/backend/blkif"
	"github.com/kemari-ft/kemari/backend/gate"
	"github.com/kemari-ft/kemari/backend/store"
	"github.com/kemari-ft/kemari/backend/xenbus"
	"github.com/kemari-ft/kemari/toolstack/secondary"
	"github.com/kemari-ft/kemari/toolstack/shell/xlstream"
	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/toolstack/xsreplica"
	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/xenstore"
)

var _ secondary.Disks = (*Server)(nil)

// backEnd is a back end as xenstore has it.
type backEnd struct {
	xenbus.ID
	state   abi.XenbusState
	refused bool // its disk was not opened
	disk    fixedDisk
}

// fixedDisk tells a disk from another one.
type fixedDisk struct{ dev, target string }

// backEnds lists those of a domain.
func (s *Server) backEnds(dom abi.DomID) ([]backEnd, error) {
	dir := fmt.Sprintf("%s/%d", xenbus.Root, uint16(dom))
	names, err := s.host.Store.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var ends []backEnd
	for _, n := range names {
		handle, err := strconv.ParseUint(n, 10, 32)
		if err != nil {
			continue
		}
		keys := map[string]string{}
		for _, key := range []string{"state", "hotplug-status", "dev", "params"} {
			keys[key], err = s.host.Store.Read(dir + "/" + n + "/" + key)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		}
		state, _ := strconv.Atoi(keys["state"])
		ends = append(ends, backEnd{
			ID:      xenbus.ID{Dom: dom, Handle: uint32(handle)},
			state:   abi.XenbusState(state),
			refused: keys["hotplug-status"] == "error",
			disk:    fixedDisk{keys["dev"], strings.TrimPrefix(keys["params"], xenbus.RawParams)},
		})
	}
	return ends, nil
}

// served are the disks, by handle, that a guest has: those in use, and those that
// are open in this process. Another one that is being attached is none yet.
func served(ends []backEnd, open []*device) map[uint32]fixedDisk {
	disks := map[uint32]fixedDisk{}
	for _, e := range ends {
		isOpen := slices.ContainsFunc(open, func(d *device) bool { return d.id == e.ID && d.target == e.disk.target })
		if isOpen || e.state == abi.XenbusConnected || e.state >= abi.XenbusInitWait && !e.refused {
			disks[e.Handle] = e.disk
		}
	}
	return disks
}

// Check says, with every reason, why this host cannot serve the disks.
func (s *Server) Check(disks []xlstream.Disk) error {
	var errs []error
	for _, d := range disks {
		st, err := store.Open(d.Path, store.Options{ReadOnly: !d.Writable})
		if err != nil {
			errs = append(errs, fmt.Errorf("disk %s: %w", d.Vdev, err))
			continue
		}
		errs = append(errs, st.Close())
	}
	return errors.Join(errs...)
}

// blockScript is the hotplug script of our disks.
const blockScript = "/etc/xen/scripts/block-kemari"

// Attach takes over the front ends of a guest that was served by another host
// and does not run yet.
func (s *Server) Attach(_ uuid.UUID, dom abi.DomID, disks []xlstream.Disk, back []xsreplica.Node, rings []stream.Ring) error {
	positions := map[uint32][]gate.Indices{}
	for _, r := range rings {
		if r.Class != stream.RingVBD || int(r.Queue) != len(positions[r.DevID]) {
			return fmt.Errorf("ring %d of device %d of class %d is not one to be attached", r.Queue, r.DevID, r.Class)
		}
		positions[r.DevID] = append(positions[r.DevID], gate.Indices{RspProd: r.RspProd, ReqProd: r.ReqProd})
	}
	nodes := map[uint32]map[string]string{}
	for _, n := range back {
		rest, ok := strings.CutPrefix(n.Path, fmt.Sprintf("%s/%d/", xenbus.Root, uint16(dom)))
		dev, key, below := strings.Cut(rest, "/")
		handle, err := strconv.ParseUint(dev, 10, 32)
		if !ok || !below || err != nil {
			continue
		}
		if nodes[uint32(handle)] == nil {
			nodes[uint32(handle)] = map[string]string{}
		}
		nodes[uint32(handle)][key] = n.Value
	}
	var errs []error
	for handle, keys := range nodes {
		if err := s.attach(dom, handle, keys, disks, positions[handle]); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (s *Server) attach(dom abi.DomID, handle uint32, keys map[string]string, disks []xlstream.Disk, at []gate.Indices) error {
	id := xenbus.ID{Dom: dom, Handle: handle}
	d, known := diskOf(keys, disks)
	switch {
	case !known && len(at) == 0:
		s.host.Log.Warn("a disk is left out: it was not served on the other host, and the guest's configuration does not have it", "disk", id, "dev", keys["dev"], "params", keys["params"])
		return nil
	case !known:
		return fmt.Errorf("%s: the guest's configuration has no disk %q with %q", id, keys["dev"], keys["params"])
	}
	disk := xenbus.Disk{
		ID: id, Script: blockScript, Discard: keys["discard-enable"] != "0",
		Target: d.Path, ReadOnly: !d.Writable,
	}
	keep := map[string]string{}
	for k, v := range keys {
		if xenbus.IsCarried(k) {
			keep[k] = v
		}
	}
	// A back end takes its rings first and says then that it is connected: between
	// the two the front end has not put anything into them.
	if unused := !slices.ContainsFunc(at, func(i gate.Indices) bool { return i != gate.Indices{} }); unused && keep["sectors"] == "" {
		return s.offer(disk, keep)
	}
	dev, err := s.device(disk)
	if err != nil {
		return err
	}
	if err := s.bus.Attach(disk, dev, keep, at); err != nil {
		return err
	}
	// The other host is gone for certain, and nobody holds a copy.
	dev.Ungate()
	return nil
}

// diskOf finds the disk of the configuration of which a back end's keys tell.
// Another one may have been attached under the name of one that was detached: it
// was refused, but has its nodes, and must not bring the detached one back.
func diskOf(keys map[string]string, disks []xlstream.Disk) (xlstream.Disk, bool) {
	i := slices.IndexFunc(disks, func(d xlstream.Disk) bool {
		return d.Vdev == keys["dev"] && keys["params"] == xenbus.RawParams+d.Path
	})
	if i < 0 {
		return xlstream.Disk{}, false
	}
	return disks[i], true
}

// offer makes the nodes of a back end whose front end had not connected at the
// last sync, as libxl would have: the hand-shake begins anew here.
func (s *Server) offer(disk xenbus.Disk, keys map[string]string) error {
	id := disk.ID
	front := fmt.Sprintf("/local/domain/%d/device/vbd/%d", uint16(id.Dom), id.Handle)
	back := fmt.Sprintf("%s/%d/%d", xenbus.Root, uint16(id.Dom), id.Handle)
	pairs := [][2]string{
		{"frontend", front}, {"frontend-id", strconv.Itoa(int(id.Dom))},
		{"params", xenbus.RawParams + disk.Target}, {"script", disk.Script}, {"online", "1"},
		{"hotplug-status", "connected"},
	}
	for _, k := range []string{"removable", "bootable", "dev", "type", "mode", "device-type", "discard-enable", "specification"} {
		if v, ok := keys[k]; ok {
			pairs = append(pairs, [2]string{k, v})
		}
	}
	libxl := append(pairs[:len(pairs):len(pairs)], [2]string{"backend", back})
	pairs = append(pairs, [2]string{"state", strconv.Itoa(int(abi.XenbusInitialising))})
	err := s.host.Store.Transaction(func(tx *xenstore.Tx) error {
		if err := tx.Mkdir(back); err != nil {
			return err
		}
		if err := tx.SetPerms(back, xenstore.Perm{Dom: abi.Dom0, Access: xenstore.AccessNone}, xenstore.Perm{Dom: id.Dom, Access: xenstore.AccessRead}); err != nil {
			return err
		}
		for _, p := range pairs {
			if err := tx.Write(back+"/"+p[0], p[1]); err != nil {
				return err
			}
		}
		for _, p := range libxl {
			if err := tx.Write(fmt.Sprintf("/libxl/%d/device/vbd/%d/%s", uint16(id.Dom), id.Handle, p[0]), p[1]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s: making its back end: %w", id, err)
	}
	return nil
}

// Attach remembers where the rings are.
func (d *device) Attach(ch []blkif.QueueChannel, at []gate.Indices) error {
	return d.guest.link(d, ch, func(ch []blkif.QueueChannel) error { return d.Device.Attach(ch, at) })
}
