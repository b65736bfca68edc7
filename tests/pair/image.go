// SPDX-License-Identifier: Apache-2.0

package pair

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/kemari-ft/kemari/tests/initramfs"
	"github.com/kemari-ft/kemari/tools/lab/cache"
	"github.com/kemari-ft/kemari/tools/lab/image"
)

// SmallKernel builds the kernel of guests whose kernel is not the subject, and names
// its file.
func SmallKernel(ctx context.Context, log func(string)) (string, error) {
	builder, err := newBuilder(log)
	if err != nil {
		return "", err
	}
	return builder.SmallKernel(ctx)
}

// XenSource is the directory of Xen's sources with the series applied.
func XenSource(ctx context.Context, log func(string)) (string, error) {
	builder, err := newBuilder(log)
	if err != nil {
		return "", err
	}
	return builder.XenSource(ctx)
}

func newBuilder(log func(string)) (*image.Builder, error) {
	store, err := cache.Open()
	if err != nil {
		return nil, err
	}
	return image.NewBuilder(store, log)
}

// BuildGuest builds the demonstration guest's initramfs.
func BuildGuest(ctx context.Context, out string, log func(string)) error {
	builder, err := newBuilder(log)
	if err != nil {
		return err
	}
	kernel, err := builder.GuestKernel(ctx)
	if err != nil {
		return err
	}
	bin := out + ".init"
	defer os.Remove(bin)
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", bin, module+"tests/guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building the demonstration guest: %w\n%s", err, text)
	}
	modules := filepath.Join(kernel.Root, "usr/lib/modules", kernel.Release)
	return initramfs.Build(out, bin, modules, []string{"xen-blkfront"})
}
