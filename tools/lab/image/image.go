// SPDX-License-Identifier: Apache-2.0

// Package image makes everything a lab host boots from: the hypervisor, the
// dom0 disk with its kernel, the guest kernel, the disk with our own programs,
// and QEMU itself. Each is made once and kept in the cache.
package image

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/kemari-ft/kemari/tools/lab/cache"
)

// A Builder makes images. Its methods may be called at the same time.
type Builder struct {
	store *cache.Store
	root  string // of the module
	log   func(string)
}

// NewBuilder returns a builder that tells log what it is about to spend time on.
func NewBuilder(store *cache.Store, log func(string)) (*Builder, error) {
	root, err := cache.ModuleRoot()
	if err != nil {
		return nil, err
	}
	return &Builder{store: store, root: root, log: log}, nil
}

func (b *Builder) logf(format string, args ...any) {
	if b.log != nil {
		b.log(fmt.Sprintf(format, args...))
	}
}

// ext4 makes a file system image at out that holds dir and has spare room.
func ext4(ctx context.Context, dir, out, label string, spareMiB int64) error {
	var size int64
	err := filepath.Walk(dir, func(_ string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		size += 1024 // inode, directory entry, block rounding
		if info.Mode().IsRegular() {
			size += (info.Size() + 4095) &^ 4095
		}
		return nil
	})
	if err != nil {
		return err
	}
	mib := size>>20 + size>>20/16 + spareMiB
	_, err = run(ctx, "", "mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-L", label,
		"-E", "root_owner=0:0", "-d", dir, out, fmt.Sprintf("%dM", mib))
	return err
}

// static is the command that builds one of our programs so that it runs
// under any distribution.
func (b *Builder) static(ctx context.Context, out string, packages ...string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-trimpath", "-o", out}, packages...)...)
	cmd.Dir = b.root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if msg, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, msg)
	}
	return nil
}
