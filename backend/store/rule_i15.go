// SPDX-License-Identifier: Apache-2.0

//go:build !broken_i15

package store

import (
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// File systems that carry a direct write to storage other hosts read, before
// it returns. See include/uapi/linux/magic.h; gfs2 and ceph define theirs in
// their own sources.
var sharedFileSystems = map[int64]string{
	unix.NFS_SUPER_MAGIC:   "nfs",
	unix.OCFS2_SUPER_MAGIC: "ocfs2",
	0x01161970:             "gfs2",
	unix.CEPH_SUPER_MAGIC:  "ceph",
}

// promises says whether a file system can keep the promise of this package.
func promises(fsType int64, o Options) error {
	if _, ok := sharedFileSystems[fsType]; ok || o.anyFileSystem {
		return nil
	}
	return fmt.Errorf("its file system (type %#x) does not promise that another host can read what was written; "+
		"use a block device or a shared file system: %s", fsType,
		strings.Join(slices.Sorted(maps.Values(sharedFileSystems)), ", "))
}

// refuseHostCache walks the stack of devices under dev ("major:minor") in
// sysfs and refuses those that keep written data on this host: loop devices
// and RAM disks by their nature, bcache when set to write back.
func refuseHostCache(sysfs fs.FS, dev string) error {
	return refuseStack(sysfs, path.Join("dev/block", dev), maxStack)
}
