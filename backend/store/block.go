// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// openBlock opens a block device with O_DIRECT: its writes go past this host's
// page cache to the device, which the other host shares. They are not forced
// through the device's own cache (no O_DSYNC): that cache is on the far side
// of the path, shared as the medium is, and the guest flushes it as it would
// on real hardware.
func openBlock(name string, o Options) (Store, error) {
	f, err := openDirect(name, o, unix.O_DIRECT)
	if err != nil {
		return nil, err
	}
	s, err := newBlock(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s, nil
}

func newBlock(f *os.File) (Store, error) {
	var st unix.Stat_t
	var sector int
	err := retry(f, "query", func(fd int) error {
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		var err error
		sector, err = unix.IoctlGetInt(fd, unix.BLKSSZGET)
		return err
	})
	if err != nil {
		return nil, err
	}
	if sector < 512 || sector > 4096 || sector&(sector-1) != 0 {
		return nil, fmt.Errorf("its sectors of %d bytes can not be offered to a guest", sector)
	}
	dev := fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	if err := refuseHostCache(os.DirFS("/sys"), dev); err != nil {
		return nil, err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	return &direct{f: f, size: size, sector: sector}, nil
}

// maxStack bounds the walk through stacked devices.
const maxStack = 16

// refuseStack looks at the device in sysfs directory dir and those below it.
func refuseStack(sysfs fs.FS, dir string, depth int) error {
	if depth == 0 {
		return fmt.Errorf("devices are stacked more than %d deep", maxStack)
	}
	uevent, err := fs.ReadFile(sysfs, path.Join(dir, "uevent"))
	if err != nil {
		return fmt.Errorf("can not tell what device it is: %w", err)
	}
	name := ""
	for line := range strings.Lines(string(uevent)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "DEVNAME="); ok {
			name = v
		}
	}
	for _, kind := range []string{"loop", "ram", "zram", "pmem"} {
		if n, ok := strings.CutPrefix(name, kind); ok && strings.Trim(n, "0123456789p") == "" {
			return fmt.Errorf("%s keeps its data on this host, where the other host can not read it; use shared storage", name)
		}
	}
	mode, err := fs.ReadFile(sysfs, path.Join(dir, "bcache/cache_mode"))
	if err == nil && strings.Contains(string(mode), "[writeback]") {
		return fmt.Errorf("%s caches writes on this host; set its bcache/cache_mode to writethrough", name)
	}
	// LVM's dm-cache and dm-writecache, told by the hidden volumes below them: see
	// lib/activate/dev_manager.c. Their mode is not in sysfs.
	if uuid, err := fs.ReadFile(sysfs, path.Join(dir, "dm/uuid")); err == nil {
		for _, part := range []string{"-cdata", "-cmeta", "-corig", "-cvol", "-wcorig"} {
			if strings.HasSuffix(strings.TrimSpace(string(uuid)), part) {
				return fmt.Errorf("%s is part of an LVM cache, which may keep writes on this host; use a volume without one", name)
			}
		}
	}
	slaves, err := fs.ReadDir(sysfs, path.Join(dir, "slaves"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("can not tell what %s lies on: %w", name, err)
	}
	for _, s := range slaves {
		if err := refuseStack(sysfs, path.Join(dir, "slaves", s.Name()), depth-1); err != nil {
			return fmt.Errorf("%s lies on a device that is refused: %w", name, err)
		}
	}
	return nil
}
