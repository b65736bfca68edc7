// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/kemari-ft/kemari/tools/lab/cpio"
)

// A Module is a kernel module's file, uncompressed.
type Module struct {
	Name string // file name, ending in .ko
	Data []byte
}

// modules reads modules from root.
func modules(ctx context.Context, root, release string, names ...string) ([]Module, error) {
	var mods []Module
	seen := map[string]bool{}
	for _, name := range names {
		out, err := run(ctx, "", "modprobe", "-d", root, "-S", release, "--show-depends", name)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(out)) {
			f := strings.Fields(line)
			if len(f) < 2 || f[0] != "insmod" || seen[f[1]] {
				continue // "builtin NAME" needs no file
			}
			seen[f[1]] = true
			data, err := moduleData(ctx, f[1])
			if err != nil {
				return nil, err
			}
			mods = append(mods, Module{strings.TrimSuffix(filepath.Base(f[1]), ".xz"), data})
		}
	}
	return mods, nil
}

// moduleData is a module's content, uncompressed.
func moduleData(ctx context.Context, path string) ([]byte, error) {
	switch filepath.Ext(path) {
	case ".xz":
		return run(ctx, "", "xz", "-dc", path)
	case ".ko":
		return os.ReadFile(path)
	}
	return nil, fmt.Errorf("module %s: unknown compression", path)
}

// writeInitramfs makes an initramfs of root's busybox, an init and the modules
// that it loads.
func writeInitramfs(root string, init []byte, mods []Module, out string) error {
	busybox, err := os.ReadFile(filepath.Join(root, "usr/bin/busybox"))
	if err != nil {
		return err
	}
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	w := cpio.NewWriter(z)
	for _, d := range []string{"bin", "dev", "proc", "sys", "root", "modules"} {
		w.Dir(d) // a Writer keeps its first error for Close
	}
	w.Char("dev/console", 5, 1)
	w.File("bin/busybox", 0o755, busybox)
	w.File("init", 0o755, init)
	for i, m := range mods {
		w.File(fmt.Sprintf("modules/%02d-%s", i, m.Name), 0o644, m.Data)
	}
	if err := w.Close(); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return os.WriteFile(out, buf.Bytes(), 0o644)
}
