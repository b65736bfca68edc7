// SPDX-License-Identifier: Apache-2.0

// Package initramfs builds the initial RAM file system of the demonstration
// guest in Go alone, with no root and no cpio program.
package initramfs

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
)

// Build writes a gzip-compressed initramfs to out: initBinary as /init, with
// /sbin/poweroff and /sbin/reboot as links to it, and in /modules the modules
// named ("xen-blkfront"; - and _ are the same), numbered in that order, in which
// the guest loads them: name one after those it depends on. modulesDir is the
// kernel's /lib/modules/VERSION, as its package holds it (modules.dep, which
// only an installed kernel has, is not needed); a module that is built into the
// kernel is skipped. Modules stay compressed as the kernel's package has them: the guest hands
// them to the kernel with MODULE_INIT_COMPRESSED_FILE.
//
// out is replaced in one step, and the same input gives the same bytes.
func Build(out string, initBinary string, modulesDir string, modules []string) error {
	program, err := os.ReadFile(initBinary)
	if err != nil {
		return fmt.Errorf("build initramfs %s: %w", out, err)
	}
	entries := []entry{
		{name: "dev", mode: modeDir | 0o755},
		// The kernel opens it for /init before anything can be mounted on /dev.
		{name: "dev/console", mode: modeChar | 0o600, major: 5, minor: 1},
		{name: "proc", mode: modeDir | 0o755},
		{name: "sys", mode: modeDir | 0o755},
		{name: "sbin", mode: modeDir | 0o755},
		{name: "sbin/poweroff", mode: modeSymlink | 0o777, data: []byte("/init")},
		{name: "sbin/reboot", mode: modeSymlink | 0o777, data: []byte("/init")},
		{name: "init", mode: modeFile | 0o755, data: program},
		{name: "modules", mode: modeDir | 0o755},
	}
	if len(modules) > 0 {
		files, err := find(modulesDir, modules)
		if err != nil {
			return fmt.Errorf("build initramfs %s: %w", out, err)
		}
		for i, name := range files {
			data, err := os.ReadFile(name)
			if err != nil {
				return fmt.Errorf("build initramfs %s: %w", out, err)
			}
			entries = append(entries, entry{
				name: fmt.Sprintf("modules/%02d-%s", i, filepath.Base(name)),
				mode: modeFile | 0o644, data: data,
			})
		}
	}
	if err := write(out, entries); err != nil {
		return fmt.Errorf("build initramfs %s: %w", out, err)
	}
	return nil
}

func write(out string, entries []entry) error {
	f, err := renameio.NewPendingFile(out, renameio.WithPermissions(0o644))
	if err != nil {
		return err
	}
	defer f.Cleanup()
	z := gzip.NewWriter(f)
	if err := writeCPIO(z, entries); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return f.CloseAtomicallyReplace()
}

// find answers the modules' files as paths inside dir, in the order of modules.
func find(dir string, modules []string) ([]string, error) {
	built, err := builtin(dir)
	if err != nil {
		return nil, err
	}
	files := make(map[string]string)
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.Contains(d.Name(), ".ko") {
			files[canonical(path)] = path
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	var found []string
	var errs []error
	for _, m := range modules {
		name := canonical(m)
		if file, ok := files[name]; ok {
			found = append(found, file)
		} else if !built[name] {
			errs = append(errs, fmt.Errorf("module %s: neither in %s nor built into its kernel", m, dir))
		}
	}
	return found, errors.Join(errs...)
}

// canonical is the kernel's name for the module in a file.
func canonical(file string) string {
	base, _, _ := strings.Cut(filepath.Base(file), ".ko")
	return strings.ReplaceAll(base, "-", "_")
}

func builtin(dir string) (map[string]bool, error) {
	raw, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	names := make(map[string]bool)
	for line := range strings.Lines(string(raw)) {
		names[canonical(strings.TrimSpace(line))] = true
	}
	return names, nil
}
