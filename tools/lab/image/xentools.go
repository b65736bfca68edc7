// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/kemari-ft/kemari/tools/lab/cache"
)

// What the series changes outside the hypervisor is built from these parts
// and laid over Debian's files of the same names in dom0.
var (
	toolsParts     = []string{"include", "libs", "xl"}
	toolsConfigure = []string{"--prefix=/usr", "--libdir=/usr/lib/x86_64-linux-gnu", "--libexecdir=/usr/lib", "--with-libexec-leaf-dir=xen-4.20",
		"--sysconfdir=/etc", "--localstatedir=/var",
		"--disable-docs", "--disable-stubdom", "--disable-rombios", "--disable-seabios", "--disable-ovmf",
		"--disable-pvshim", "--disable-golang", "--disable-ocamltools",
		"--with-system-qemu=/usr/bin/qemu-system-x86_64"}
)

// patchedTools builds xl and its libraries and returns the tree to lay over
// dom0's root, or "" when the series leaves them as Debian has them.
func (b *Builder) patchedTools(ctx context.Context) (string, error) {
	touched, err := b.toolsTouched()
	if err != nil || !touched {
		return "", err
	}
	src, err := b.XenSource(ctx)
	if err != nil {
		return "", err
	}
	// Not the whole tree, so that a change of the hypervisor rebuilds nothing here.
	key := cache.NewKey().Add("xen tools v1").Add(toolsConfigure...).Add(toolsParts...)
	for _, dir := range []string{"tools", "config", "xen/include/public"} {
		if err := key.AddTree(filepath.Join(src, dir), cache.SkipBuilt); err != nil {
			return "", err
		}
	}
	return b.store.Get(ctx, "xen-tools", key, func(ctx context.Context, out string) error {
		return b.buildTools(ctx, src, out)
	})
}

func (b *Builder) buildTools(ctx context.Context, src, out string) error {
	if err := b.require(ctx, append(hostXen, hostTools...)); err != nil {
		return err
	}
	tree, remove, err := b.workTree(ctx, src)
	if err != nil {
		return err
	}
	defer remove()
	b.logf("building the patched xl and its libraries")
	if _, err := run(ctx, tree, "./configure", toolsConfigure...); err != nil {
		return err
	}
	jobs := fmt.Sprintf("-j%d", runtime.NumCPU())
	for _, part := range toolsParts {
		if _, err := run(ctx, tree, "make", "-s", jobs, "-C", "tools/"+part); err != nil {
			return err
		}
	}
	for _, part := range toolsParts[1:] {
		if _, err := run(ctx, tree, "make", "-s", "-C", "tools/"+part, "install", "DESTDIR="+out); err != nil {
			return err
		}
	}
	return debianPlaces(out)
}

// debianPlaces leaves only what replaces a file of Debian's, at its place.
func debianPlaces(out string) error {
	// Debian's /usr/sbin/xl chooses the version that fits the hypervisor.
	if err := os.Rename(filepath.Join(out, "usr/sbin/xl"), filepath.Join(out, "usr/lib/xen-4.20/bin/xl")); err != nil {
		return err
	}
	for _, dir := range []string{"usr/include", "usr/share", "usr/sbin", "var", "etc"} {
		if err := os.RemoveAll(filepath.Join(out, dir)); err != nil {
			return err
		}
	}
	return nil
}

// toolsTouched tells whether the series changes anything that toolsParts
// builds. A tree named by XEN_SRC may hold any change.
func (b *Builder) toolsTouched() (bool, error) {
	if os.Getenv("XEN_SRC") != "" {
		return true, nil
	}
	patches, err := b.series()
	if err != nil {
		return false, err
	}
	for _, p := range patches {
		text, err := os.ReadFile(p)
		if err != nil {
			return false, err
		}
		for _, part := range toolsParts {
			if bytes.Contains(text, []byte("\n+++ b/tools/"+part+"/")) {
				return true, nil
			}
		}
	}
	return false, nil
}

// overlayTools lays a tree over dom0's root and checks that the libraries it
// was linked with outside exist inside.
func overlayTools(ctx context.Context, overlay, root string) error {
	if _, err := run(ctx, "", "cp", "-a", overlay+"/.", root+"/"); err != nil {
		return err
	}
	if _, err := run(ctx, "", "ldconfig", "-r", root); err != nil {
		return err
	}
	libs := filepath.Join(root, "usr/lib/x86_64-linux-gnu")
	return filepath.WalkDir(overlay, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := elf.Open(path)
		var format *elf.FormatError
		if errors.As(err, &format) || err != nil && strings.Contains(err.Error(), "EOF") {
			return nil // not a program
		}
		if err != nil {
			return err
		}
		defer f.Close()
		needed, err := f.ImportedLibraries()
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		for _, lib := range needed {
			if _, err := os.Stat(filepath.Join(libs, lib)); err != nil {
				return fmt.Errorf("%s needs %s, which dom0 lacks: add its package to dom0Packages",
					filepath.Base(path), lib)
			}
		}
		return nil
	})
}
