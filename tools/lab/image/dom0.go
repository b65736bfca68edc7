// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/kemari-ft/kemari/tools/lab/cache"
)

// dom0Packages are what dom0 holds beyond Debian's minimal base.
var dom0Packages = []string{"xen-utils-4.20", "linux-image-amd64", "udev", "iproute2", "kmod", "e2fsprogs",
	"busybox-static", "iputils-ping", "procps", "libnl-3-200", "libnl-route-3-200"}

//go:embed files/initramfs-init
var initramfsInit []byte

// Dom0 is what a host boots beside the hypervisor.
type Dom0 struct {
	Kernel string // vmlinux
	Initrd string
	Disk   string // raw ext4 image of the root file system; must not be written to
}

// Dom0 makes the Debian system of the hosts.
func (b *Builder) Dom0(ctx context.Context) (Dom0, error) {
	overlay, err := b.patchedTools(ctx)
	if err != nil {
		return Dom0{}, err
	}
	key := cache.NewKey().Add("dom0 v2", Suite).Add(dom0Packages...).Add(string(initramfsInit), filepath.Base(overlay))
	dir, err := b.store.Get(ctx, "dom0", key, func(ctx context.Context, out string) error {
		return b.makeDom0(ctx, out, overlay)
	})
	if err != nil {
		return Dom0{}, err
	}
	return Dom0{
		Kernel: filepath.Join(dir, "vmlinux"),
		Initrd: filepath.Join(dir, "initrd.img"),
		Disk:   filepath.Join(dir, "root.img"),
	}, nil
}

func (b *Builder) makeDom0(ctx context.Context, out, overlay string) error {
	root, err := b.bootstrap(ctx, "minbase", dom0Packages)
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	if err := os.Mkdir(out, 0o755); err != nil {
		return err
	}
	release, err := kernelRelease(root)
	if err != nil {
		return err
	}
	if err := unpackKernel(ctx, filepath.Join(root, "boot/vmlinuz-"+release), filepath.Join(out, "vmlinux")); err != nil {
		return err
	}
	mods, err := modules(ctx, root, release, "virtio_blk", "crc32c_generic", "ext4")
	if err != nil {
		return err
	}
	if err := writeInitramfs(root, initramfsInit, mods, filepath.Join(out, "initrd.img")); err != nil {
		return err
	}
	// The distribution's own initramfs is never booted.
	if err := os.RemoveAll(filepath.Join(root, "boot")); err != nil {
		return err
	}
	for _, d := range []string{"opt/kemari", "etc/kemari"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	if overlay != "" {
		if err := overlayTools(ctx, overlay, root); err != nil {
			return err
		}
	}
	return ext4(ctx, root, filepath.Join(out, "root.img"), "kemari-root", 256)
}

// bootstrap makes a Debian root directory in the cache's directory, for the
// caller to rename or remove. The variant is mmdebstrap's.
func (b *Builder) bootstrap(ctx context.Context, variant string, packages []string) (string, error) {
	if err := b.require(ctx, hostRoot); err != nil {
		return "", err
	}
	uri, err := mirror(ctx)
	if err != nil {
		return "", err
	}
	root, err := os.MkdirTemp(b.store.Dir(), "new.root-")
	if err != nil {
		return "", err
	}
	b.logf("making a Debian %s root with %s", Suite, strings.Join(packages, " "))
	_, err = run(ctx, "", "mmdebstrap", "--variant="+variant, "--architectures=amd64",
		"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
		"--dpkgopt=path-exclude=/usr/share/locale/*",
		"--include="+strings.Join(packages, ","), Suite, root,
		fmt.Sprintf("deb [signed-by=%s] %s %s main", keyring, uri, Suite))
	if err != nil {
		os.RemoveAll(root)
		return "", err
	}
	return root, nil
}

func kernelRelease(root string) (string, error) {
	found, err := filepath.Glob(filepath.Join(root, "boot/vmlinuz-*"))
	if err != nil {
		return "", err
	}
	if len(found) != 1 {
		return "", fmt.Errorf("expected one kernel in %s/boot, found %d", root, len(found))
	}
	return strings.TrimPrefix(filepath.Base(found[0]), "vmlinuz-"), nil
}
