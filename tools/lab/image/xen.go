// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"github.com/kemari-ft/kemari/tools/lab/cache"
)

// The Xen that the series applies to: Debian 13's upstream tarball.
const (
	xenVersion = "4.20.3+127-gc42374a105"
	xenTarball = "xen_" + xenVersion + ".orig.tar.xz"
	xenSHA256  = "df0831854a55a8f31cb3cb85036f2edc928e2ef098d77f815f5714bfafac68f3"
)

// A Variant is a way to build the hypervisor.
type Variant string

const (
	Debug   Variant = "debug"   // assertions on
	Release Variant = "release" // what is measured
)

// Xen's own tests at boot stay out: QEMU raises #GP where one of them expects #SS,
// and Xen counts down three seconds before it goes on.
var variantConfig = map[Variant]string{
	Debug:   "CONFIG_EXPERT=y\nCONFIG_DEBUG=y\n# CONFIG_SELF_TESTS is not set\nCONFIG_KEMARI=y\n",
	Release: "CONFIG_EXPERT=y\n# CONFIG_DEBUG is not set\nCONFIG_KEMARI=y\n",
}

// Hypervisor makes xen/xen with the patch series applied. LAB_XEN names one
// built elsewhere.
func (b *Builder) Hypervisor(ctx context.Context, v Variant) (string, error) {
	if p := os.Getenv("LAB_XEN"); p != "" {
		if _, err := os.Stat(p); err != nil {
			return "", fmt.Errorf("LAB_XEN: %w", err)
		}
		return filepath.Abs(p)
	}
	config, ok := variantConfig[v]
	if !ok {
		return "", fmt.Errorf("no hypervisor variant %q", v)
	}
	src, err := b.XenSource(ctx)
	if err != nil {
		return "", err
	}
	key := cache.NewKey().Add("hypervisor v1", filepath.Base(src), config)
	return b.store.Get(ctx, "xen-"+string(v), key, func(ctx context.Context, out string) error {
		if err := b.require(ctx, hostXen); err != nil {
			return err
		}
		tree, remove, err := b.workTree(ctx, src)
		if err != nil {
			return err
		}
		defer remove()
		b.logf("building the %s hypervisor", v)
		if err := os.WriteFile(filepath.Join(tree, "xen/.config"), []byte(config), 0o644); err != nil {
			return err
		}
		jobs := fmt.Sprintf("-j%d", runtime.NumCPU())
		if _, err := run(ctx, tree, "make", "-s", "-C", "xen", "olddefconfig"); err != nil {
			return err
		}
		if _, err := run(ctx, tree, "make", "-s", jobs, "-C", "xen"); err != nil {
			return err
		}
		return copyFile(filepath.Join(tree, "xen/xen"), out)
	})
}

// workTree copies a source tree for a build to write into.
func (b *Builder) workTree(ctx context.Context, src string) (dir string, remove func(), err error) {
	dir, err = os.MkdirTemp(b.store.Dir(), "new.build-")
	if err != nil {
		return "", nil, err
	}
	remove = func() { os.RemoveAll(dir) }
	if _, err := run(ctx, "", "cp", "-a", src+"/.", dir); err != nil {
		remove()
		return "", nil, err
	}
	return dir, remove, nil
}

// XenSource makes the patched source tree. XEN_SRC names a tree that is used
// as it is, series applied or not.
func (b *Builder) XenSource(ctx context.Context) (string, error) {
	if dir := os.Getenv("XEN_SRC"); dir != "" {
		key := cache.NewKey().Add("given source v1")
		if err := key.AddTree(dir, cache.SkipBuilt); err != nil {
			return "", fmt.Errorf("XEN_SRC: %w", err)
		}
		return b.store.Get(ctx, "xen-source", key, func(ctx context.Context, out string) error {
			if _, err := run(ctx, "", "cp", "-a", dir, out); err != nil {
				return err
			}
			_, err := run(ctx, out, "make", "-s", "-C", "xen", "clean")
			return err
		})
	}
	patches, err := b.series()
	if err != nil {
		return "", err
	}
	key := cache.NewKey().Add("source v1", xenSHA256)
	for _, p := range patches {
		if err := key.AddFile(filepath.Base(p), p); err != nil {
			return "", err
		}
	}
	return b.store.Get(ctx, "xen-source", key, func(ctx context.Context, out string) error {
		if err := b.require(ctx, hostXen); err != nil {
			return err
		}
		tarball, err := b.xenTarball(ctx)
		if err != nil {
			return err
		}
		if err := os.Mkdir(out, 0o755); err != nil {
			return err
		}
		if _, err := run(ctx, "", "tar", "-xf", tarball, "-C", out, "--strip-components=1"); err != nil {
			return err
		}
		for _, p := range patches {
			if _, err := run(ctx, out, "patch", "-p1", "--batch", "--forward", "--fuzz=0", "-i", p); err != nil {
				return fmt.Errorf("%s does not apply to Xen %s: %w", filepath.Base(p), xenVersion, err)
			}
		}
		return nil
	})
}

// series lists the patches in order; a series that does not exist is empty.
func (b *Builder) series() ([]string, error) {
	dir := filepath.Join(b.root, "hvpatch")
	text, err := os.ReadFile(filepath.Join(dir, "series"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var patches []string
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line != "" {
			patches = append(patches, filepath.Join(dir, line))
		}
	}
	return patches, nil
}

// xenTarball downloads the source from the archive that apt is configured for.
func (b *Builder) xenTarball(ctx context.Context) (string, error) {
	return b.store.Get(ctx, "xen.orig.tar.xz", cache.NewKey().Add(xenSHA256), func(ctx context.Context, out string) error {
		b.logf("downloading %s", xenTarball)
		tmp, err := os.MkdirTemp(b.store.Dir(), "new.apt-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(tmp)
		a, err := newApt(ctx, tmp, "deb-src")
		if err != nil {
			return err
		}
		listed, err := a.get(ctx, "source", "--print-uris", "xen")
		if err != nil {
			return err
		}
		uri, newer, err := tarballURI(listed)
		if err != nil {
			return err
		}
		if _, err := run(ctx, "", "/usr/lib/apt/apt-helper", "download-file", uri, out, "SHA256:"+xenSHA256); err != nil {
			if newer != "" {
				return fmt.Errorf("the archive now lists %s and no longer serves %s, which the series is made for; "+
					"put that tree elsewhere and name it in XEN_SRC: %w", newer, xenTarball, err)
			}
			return err
		}
		return nil
	})
}

var uriLine = regexp.MustCompile(`(?m)^'([^']+/)(xen_[^/']+\.orig\.tar\.xz)'`)

// tarballURI finds where the pinned tarball lies. When the archive lists
// another one, newer names it: the pinned one may still lie beside it.
func tarballURI(listed []byte) (uri, newer string, err error) {
	m := uriLine.FindSubmatch(listed)
	if m == nil {
		return "", "", fmt.Errorf("apt-get source xen names no upstream tarball:\n%s", bytes.TrimSpace(listed))
	}
	uri = string(m[1]) + strings.ReplaceAll(xenTarball, "+", "%2b")
	if name := strings.ReplaceAll(string(m[2]), "%2b", "+"); name != xenTarball {
		newer = name
	}
	return uri, newer, nil
}
