// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"os"
	"path/filepath"

	"github.com/kemari-ft/kemari/tools/lab/cache"
)

// QEMU fetches the emulator and returns the command that runs it, to which
// options are added. It is always Debian 13's (10.0), run with its own
// libraries out of the cache: with Debian 12's (7.2) about every second PVH
// guest dies while it boots, because the emulated guest's RFLAGS come back
// from a #VMEXIT with the value of some operand in them.
func (b *Builder) QEMU(ctx context.Context) ([]string, error) {
	key := cache.NewKey().Add("qemu v1", Suite)
	dir, err := b.store.Get(ctx, "qemu", key, func(ctx context.Context, out string) error {
		root, err := b.bootstrap(ctx, "extract", []string{"qemu-system-x86"})
		if err != nil {
			return err
		}
		return os.Rename(root, out)
	})
	if err != nil {
		return nil, err
	}
	usr := filepath.Join(dir, "usr")
	return []string{
		filepath.Join(usr, "lib64/ld-linux-x86-64.so.2"),
		"--library-path", filepath.Join(usr, "lib/x86_64-linux-gnu"),
		filepath.Join(usr, "bin/qemu-system-x86_64"),
		"-L", filepath.Join(usr, "share/qemu"),
		"-L", filepath.Join(usr, "share/seabios"),
	}, nil
}
