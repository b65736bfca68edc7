// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	_ "embed"
	"os"
	"path/filepath"

	"github.com/kemari-ft/kemari/tools/lab/cache"
)

//go:embed files/guest-init
var guestInit []byte

//go:embed files/tick.cfg
var tickConfig []byte

// guestPackage is Debian's kernel for virtual machines; it has no dom0 part.
const guestPackage = "linux-image-cloud-amd64"

// A GuestKernel is what a guest boots, except for its initramfs.
type GuestKernel struct {
	Image   string // vmlinux
	Release string // as uname -r prints it
	Root    string // holds usr/lib/modules/Release, and usr/bin/busybox (static)
}

// GuestKernel fetches the guests' kernel.
func (b *Builder) GuestKernel(ctx context.Context) (GuestKernel, error) {
	key := cache.NewKey().Add("guest kernel v2", Suite, guestPackage)
	dir, err := b.store.Get(ctx, "guest-kernel", key, b.fetchGuestKernel)
	if err != nil {
		return GuestKernel{}, err
	}
	release, err := kernelRelease(dir)
	if err != nil {
		return GuestKernel{}, err
	}
	return GuestKernel{Image: filepath.Join(dir, "boot/vmlinux-"+release), Release: release, Root: dir}, nil
}

func (b *Builder) fetchGuestKernel(ctx context.Context, out string) error {
	if err := b.require(ctx, hostRoot); err != nil {
		return err
	}
	b.logf("downloading the guest kernel")
	tmp, err := os.MkdirTemp(b.store.Dir(), "new.apt-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	a, err := newApt(ctx, tmp, "deb")
	if err != nil {
		return err
	}
	kernel, err := a.dependency(ctx, guestPackage)
	if err != nil {
		return err
	}
	if _, err := a.get(ctx, "download", kernel, "busybox-static"); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if err != nil {
		return err
	}
	for _, deb := range debs {
		if _, err := run(ctx, "", "dpkg-deb", "-x", deb, out); err != nil {
			return err
		}
	}
	release, err := kernelRelease(out)
	if err != nil {
		return err
	}
	boot := filepath.Join(out, "boot")
	if err := unpackKernel(ctx, filepath.Join(boot, "vmlinuz-"+release), filepath.Join(boot, "vmlinux-"+release)); err != nil {
		return err
	}
	// modprobe -d looks below lib, the package ships usr/lib.
	if err := os.Symlink("usr/lib", filepath.Join(out, "lib")); err != nil && !os.IsExist(err) {
		return err
	}
	_, err = run(ctx, "", "depmod", "-b", out, release)
	return err
}

// Modules reads modules of the guest kernel and what they depend on, in the
// order in which to load them.
func (k GuestKernel) Modules(ctx context.Context, names ...string) ([]Module, error) {
	return modules(ctx, k.Root, k.Release, names...)
}

// tickGuest makes the initramfs of the guest that only ticks.
func (b *Builder) tickGuest(ctx context.Context, k GuestKernel) (string, error) {
	key := cache.NewKey().Add("tick guest v1", filepath.Base(k.Root), k.Release, string(guestInit))
	return b.store.Get(ctx, "tick.img", key, func(ctx context.Context, out string) error {
		mods, err := k.Modules(ctx, "xen-blkfront", "xen-netfront")
		if err != nil {
			return err
		}
		return writeInitramfs(k.Root, guestInit, mods, out)
	})
}

// guestFiles are the guest kernel and the ticking guest, as found below
// /opt/kemari.
func (b *Builder) guestFiles(ctx context.Context) (map[string]string, error) {
	k, err := b.GuestKernel(ctx)
	if err != nil {
		return nil, err
	}
	tick, err := b.tickGuest(ctx, k)
	if err != nil {
		return nil, err
	}
	return map[string]string{"guest/vmlinux": k.Image, "guest/tick.img": tick}, nil
}
