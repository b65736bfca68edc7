// SPDX-License-Identifier: Apache-2.0

//go:build lab

// Package scenario takes whole hosts through what the project is for. Its tests
// boot Xen in QEMU (see tools/lab), need root, and are run by name from the
// Makefile:
//
//	go test -tags lab ./tests/scenario -run TestRestoreOne
package scenario

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/kemari-ft/kemari/tests/initramfs"
	"github.com/kemari-ft/kemari/tools/lab/cache"
	"github.com/kemari-ft/kemari/tools/lab/image"
	"github.com/kemari-ft/kemari/tools/lab/lab"
)

const module = "github.com/kemari-ft/kemari/"

// number reads how often a scenario is to be done.
func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		return otherwise
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 {
		t.Fatalf("%s=%q is not a number of rounds", name, v)
	}
	return n
}

// demoGuest builds the demonstration guest's initramfs.
func demoGuest(ctx context.Context, t *testing.T) string {
	t.Helper()
	store, err := cache.Open()
	if err != nil {
		t.Fatal(err)
	}
	builder, err := image.NewBuilder(store, func(s string) { t.Log(s) })
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := builder.GuestKernel(ctx)
	if err != nil {
		t.Fatal(err)
	}
	tmp := t.TempDir()
	bin, img := filepath.Join(tmp, "guest"), filepath.Join(tmp, "demo.img")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", bin, module+"tests/guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the demonstration guest: %v\n%s", err, out)
	}
	modules := filepath.Join(kernel.Root, "usr/lib/modules", kernel.Release)
	if err := initramfs.Build(img, bin, modules, []string{"xen-blkfront"}); err != nil {
		t.Fatal(err)
	}
	return img
}

// writeFile writes a file for dom0.
func writeFile(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// start boots hosts.
func start(ctx context.Context, t *testing.T, cfg lab.Config, hosts ...string) (*lab.Lab, []*lab.Host) {
	t.Helper()
	cfg.Log = func(s string) { t.Log(s) }
	l, err := lab.New(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the hosts' consoles are in %s", l.Dir())
		}
		l.Close()
	})
	began := time.Now()
	hs, err := l.Boot(hosts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d host(s) booted in %v", len(hs), time.Since(began).Round(time.Second))
	return l, hs
}
