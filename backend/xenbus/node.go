// SPDX-License-Identifier: Apache-2.0

package xenbus

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/kemari-ft/kemari/backend/blkif"
	"github.com/kemari-ft/kemari/xen/abi"
)

// Root is where libxl puts the back ends of class vbd3 that dom0 serves.
const Root = "/local/domain/0/backend/vbd3"

// ID names a device.
type ID struct {
	Dom    abi.DomID
	Handle uint32 // virtual-device, the number of the disk
}

func (id ID) String() string { return fmt.Sprintf("disk %d of %s", id.Handle, id.Dom) }

func (id ID) backend() string {
	return fmt.Sprintf("%s/%d/%d", Root, uint16(id.Dom), id.Handle)
}

func (id ID) frontend() string {
	return fmt.Sprintf("/local/domain/%d/device/vbd/%d", uint16(id.Dom), id.Handle)
}

// parseID finds the device that a path below Root belongs to.
func parseID(p string) (id ID, ok bool) {
	rest, ok := strings.CutPrefix(p, Root+"/")
	if !ok {
		return ID{}, false
	}
	parts := strings.SplitN(rest, "/", 3)
	if len(parts) < 2 {
		return ID{}, false
	}
	dom, err := strconv.ParseUint(parts[0], 10, 16)
	if err != nil || abi.DomID(dom) >= abi.DomIDFirstReserved {
		return ID{}, false
	}
	handle, err := strconv.ParseUint(parts[1], 10, 32)
	if err != nil {
		return ID{}, false
	}
	return ID{Dom: abi.DomID(dom), Handle: uint32(handle)}, true
}

// Disk is what the toolstack wrote about a device.
type Disk struct {
	ID
	Target   string // what the disk is stored in
	Script   string // libxl's hotplug script
	ReadOnly bool
	Discard  bool // may be offered
}

// RawParams is before a disk's target in a back end's params: libxl's word for raw.
const RawParams = "aio:"

// readDisk reads what libxl wrote, in device_disk_add of libxl_disk.c.
func readDisk(st Tx, id ID) (Disk, error) {
	d := Disk{ID: id}
	params, err := st.Read(path.Join(id.backend(), "params"))
	if err != nil {
		return d, err
	}
	target, ok := strings.CutPrefix(params, RawParams)
	if !ok || target == "" {
		return d, fmt.Errorf("its params are %q; only format=raw with a target is served", params)
	}
	d.Target = target
	mode, err := st.Read(path.Join(id.backend(), "mode"))
	if err != nil {
		return d, err
	}
	d.ReadOnly = mode != "w"
	if d.Script, err = st.Read(path.Join(id.backend(), "script")); err != nil {
		return d, err
	}
	discard, err := st.Read(path.Join(id.backend(), "discard-enable"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return d, err
	}
	d.Discard = discard != "0"
	frontend, err := st.Read(path.Join(id.backend(), "frontend"))
	if err != nil {
		return d, err
	}
	if frontend != id.frontend() {
		return d, fmt.Errorf("its front end is %q, not %q", frontend, id.frontend())
	}
	return d, nil
}

// pair is a key of a back end.
type pair struct{ key, value string }

// features is what is offered before the front end chooses.
func features() []pair {
	return []pair{
		{"max-ring-page-order", strconv.Itoa(blkif.MaxRingOrder)},
		{"multi-queue-max-queues", strconv.Itoa(blkif.MaxQueues)},
		{"feature-max-indirect-segments", strconv.Itoa(blkif.MaxIndirectSegments)},
		// Pages mapped for long are written without Xen noticing.
		{"feature-persistent", "0"},
		{"feature-flush-cache", "1"},
		{"feature-barrier", "0"},
	}
}

// properties is what the front end needs to know about the disk.
func properties(i blkif.Info, discard bool) []pair {
	info := 0
	if i.ReadOnly {
		info |= abi.VDiskReadonly
	}
	p := []pair{
		{"sectors", strconv.FormatUint(i.Sectors, 10)},
		{"sector-size", strconv.FormatUint(uint64(i.SectorSize), 10)},
		{"physical-sector-size", strconv.FormatUint(uint64(i.SectorSize), 10)},
		{"info", strconv.Itoa(info)},
	}
	if discard && !i.ReadOnly {
		p = append(p,
			pair{"feature-discard", "1"},
			pair{"discard-granularity", strconv.FormatUint(uint64(i.SectorSize), 10)},
			pair{"discard-alignment", "0"},
			pair{"discard-secure", "0"},
		)
	}
	return p
}

func writeAll(tx Tx, dir string, pairs []pair) error {
	for _, p := range pairs {
		if err := tx.Write(path.Join(dir, p.key), p.value); err != nil {
			return err
		}
	}
	return nil
}
