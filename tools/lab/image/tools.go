// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	_ "embed"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/kemari-ft/kemari/tools/lab/cache"
)

//go:embed files/dom0-init
var dom0Init []byte

// labPrograms are the lab's own programs inside dom0.
var labPrograms = []string{"./tools/lab/agent", "./tools/lab/lab-fence"}

// ToolsDisk makes the disk that dom0 mounts on /opt/kemari: the named main
// packages (paths as `go build` takes them, in the module) below bin, files
// (name on the disk to path outside), the guest kernel and a ticking guest
// below guest, and the lab's own below lab.
func (b *Builder) ToolsDisk(ctx context.Context, packages []string, files map[string]string) (string, error) {
	tmp, err := os.MkdirTemp(b.store.Dir(), "new.tools-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	for dir, list := range map[string][]string{"bin": packages, "lab": labPrograms} {
		// The trailing slash makes `go build` put each program into it.
		out := filepath.Join(tmp, dir) + "/"
		if err := os.Mkdir(out, 0o755); err != nil {
			return "", err
		}
		if len(list) == 0 {
			continue
		}
		if err := b.static(ctx, out, list...); err != nil {
			return "", err
		}
	}
	if err := os.WriteFile(filepath.Join(tmp, "lab/init"), dom0Init, 0o755); err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Join(tmp, "guest"), 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(tmp, "guest/tick.cfg"), tickConfig, 0o644); err != nil {
		return "", err
	}
	all, err := b.guestFiles(ctx)
	if err != nil {
		return "", err
	}
	maps.Copy(all, files)
	for name, from := range all {
		to := filepath.Join(tmp, path.Clean("/"+name))
		if err := copyFile(from, to); err != nil {
			return "", fmt.Errorf("tools disk: %w", err)
		}
	}
	key := cache.NewKey().Add("tools v1")
	if err := key.AddTree(tmp, nil); err != nil {
		return "", err
	}
	if err := b.require(ctx, hostDisk); err != nil {
		return "", err
	}
	return b.store.Get(ctx, "tools.img", key, func(ctx context.Context, out string) error {
		b.dropOldTools()
		return ext4(ctx, tmp, out, "kemari-tools", 8)
	})
}

// keptTools is how many tools disks stay in the cache; each edit of a program
// makes one, and a running host keeps its own open in any case.
const keptTools = 8

func (b *Builder) dropOldTools() {
	old, err := filepath.Glob(filepath.Join(b.store.Dir(), "tools-*.img"))
	if err != nil || len(old) < keptTools {
		return
	}
	modTime := func(p string) int64 {
		info, err := os.Stat(p)
		if err != nil {
			return 0
		}
		return info.ModTime().UnixNano()
	}
	slices.SortFunc(old, func(x, y string) int { return int((modTime(x) - modTime(y)) >> 20) })
	for _, p := range old[:len(old)-keptTools+1] {
		os.Remove(p) // one that stays costs disk space only
	}
}

func copyFile(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, data, info.Mode().Perm())
}
