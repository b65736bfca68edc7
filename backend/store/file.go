// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// openFile opens a raw file with O_DIRECT and O_DSYNC. O_DSYNC because a write
// can extend or allocate, and the file's map is data other hosts need in order
// to read what was written.
func openFile(name string, o Options) (Store, error) {
	f, err := openDirect(name, o, unix.O_DIRECT|unix.O_DSYNC)
	if err != nil {
		return nil, err
	}
	var sfs unix.Statfs_t
	var st unix.Statx_t
	err = retry(f, "query", func(fd int) error {
		if err := unix.Fstatfs(fd, &sfs); err != nil {
			return err
		}
		return unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_SIZE|unix.STATX_DIOALIGN, &st)
	})
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if err := promises(int64(sfs.Type), o); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	// 512 where direct access allows it: an image made for 512-byte sectors
	// has its partition table in these units.
	sector := max(512, int(st.Dio_offset_align))
	if st.Size == 0 || st.Size%uint64(sector) != 0 {
		return nil, errors.Join(fmt.Errorf("its size of %d bytes is not a multiple of a sector of %d", st.Size, sector), f.Close())
	}
	return &direct{f: f, size: int64(st.Size), sector: sector}, nil
}
