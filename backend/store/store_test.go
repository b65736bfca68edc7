// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"
)

func rawFile(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.raw")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

func page(t *testing.T) []byte {
	t.Helper()
	b, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(b) })
	return b
}

func openRaw(t *testing.T, path string, o Options) Store {
	t.Helper()
	s, err := Open(path, o)
	if errors.Is(err, unix.EINVAL) {
		t.Skipf("no direct access to files here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestRawFile(t *testing.T) {
	path := rawFile(t, 1<<20)
	s := openRaw(t, path, Options{anyFileSystem: true})
	if s.Size() != 1<<20 || s.SectorSize() < 512 {
		t.Fatalf("size %d, sectors of %d", s.Size(), s.SectorSize())
	}
	b := page(t)
	copy(b, "written")
	if _, err := s.WriteAt(b, 8192); err != nil {
		t.Fatal(err)
	}
	got := page(t)
	if _, err := s.ReadAt(got, 8192); err != nil || !bytes.Equal(got, b) {
		t.Fatalf("read back %q, %v", got[:7], err)
	}
	if err := s.Flush(); err != nil {
		t.Error(err)
	}
	err := s.Discard(8192, 4096)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skipf("no holes in files here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.ReadAt(got, 8192); err != nil || !bytes.Equal(got, make([]byte, 4096)) {
		t.Errorf("after discard it reads %q, %v", got[:7], err)
	}
}

func TestReadOnlyFileIsNotWritten(t *testing.T) {
	s := openRaw(t, rawFile(t, 8192), Options{anyFileSystem: true, ReadOnly: true})
	if _, err := s.WriteAt(page(t), 0); err == nil {
		t.Error("a read-only disk was written to")
	}
}

// I15: storage that keeps writes on this host is refused.
func TestI15HostLocalStorageIsRefused(t *testing.T) {
	if s, err := Open(rawFile(t, 8192), Options{}); err == nil {
		s.Close()
		t.Error("a raw file on a file system of this host is taken")
	}
	for fsType, want := range map[int64]bool{
		unix.EXT4_SUPER_MAGIC: false, unix.XFS_SUPER_MAGIC: false, unix.BTRFS_SUPER_MAGIC: false,
		unix.TMPFS_MAGIC: false, unix.FUSE_SUPER_MAGIC: false, unix.SMB2_SUPER_MAGIC: false,
		unix.NFS_SUPER_MAGIC: true, unix.OCFS2_SUPER_MAGIC: true,
	} {
		if got := promises(fsType, Options{}) == nil; got != want {
			t.Errorf("file system %#x: promises %v, want %v", fsType, got, want)
		}
	}

	sysfs := fstest.MapFS{
		"dev/block/8:0/uevent":                            {Data: []byte("MAJOR=8\nMINOR=0\nDEVNAME=sda\n")},
		"dev/block/8:0/slaves":                            {Mode: fs.ModeDir},
		"dev/block/7:0/uevent":                            {Data: []byte("DEVNAME=loop0\n")},
		"dev/block/7:1/uevent":                            {Data: []byte("DEVNAME=loop0p1\n")},
		"dev/block/1:0/uevent":                            {Data: []byte("DEVNAME=ram0\n")},
		"dev/block/43:0/uevent":                           {Data: []byte("DEVNAME=nbd0\n")},
		"dev/block/252:0/uevent":                          {Data: []byte("DEVNAME=bcache0\n")},
		"dev/block/252:0/bcache/cache_mode":               {Data: []byte("writethrough [writeback] writearound none\n")},
		"dev/block/252:1/uevent":                          {Data: []byte("DEVNAME=bcache1\n")},
		"dev/block/252:1/bcache/cache_mode":               {Data: []byte("[writethrough] writeback writearound none\n")},
		"dev/block/253:0/uevent":                          {Data: []byte("DEVNAME=dm-0\n")},
		"dev/block/253:0/slaves/sda/uevent":               {Data: []byte("DEVNAME=sda\n")},
		"dev/block/253:1/uevent":                          {Data: []byte("DEVNAME=dm-1\n")},
		"dev/block/253:1/slaves/dm-9/uevent":              {Data: []byte("DEVNAME=dm-9\n")},
		"dev/block/253:1/slaves/dm-9/slaves/loop7/uevent": {Data: []byte("DEVNAME=loop7\n")},
		"dev/block/253:2/uevent":                          {Data: []byte("DEVNAME=dm-2\n")},
		"dev/block/253:2/dm/uuid":                         {Data: []byte("LVM-Qz5kLm\n")},
		"dev/block/253:2/slaves/dm-3/uevent":              {Data: []byte("DEVNAME=dm-3\n")},
		"dev/block/253:2/slaves/dm-3/dm/uuid":             {Data: []byte("LVM-Qz5kTu-cvol\n")},
	}
	for dev, refused := range map[string]string{
		"8:0": "", "43:0": "", "252:1": "", "253:0": "",
		"7:0": "loop0", "7:1": "loop0p1", "1:0": "ram0", "252:0": "cache_mode", "253:1": "loop7", "253:2": "LVM cache",
		"9:9": "what device",
	} {
		err := refuseHostCache(sysfs, dev)
		if (err != nil) != (refused != "") || err != nil && !strings.Contains(err.Error(), refused) {
			t.Errorf("device %s: got %v, want it refused for %q", dev, err, refused)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	for name, path := range map[string]string{
		"no such file":     filepath.Join(t.TempDir(), "none"),
		"a directory":      t.TempDir(),
		"character device": "/dev/null",
		"half a sector":    rawFile(t, 1000),
		"empty":            rawFile(t, 0),
	} {
		if s, err := Open(path, Options{anyFileSystem: true}); err == nil {
			s.Close()
			t.Errorf("%s: no error", name)
		} else if !strings.Contains(err.Error(), path) {
			t.Errorf("%s: the error does not name the path: %v", name, err)
		}
	}
}
