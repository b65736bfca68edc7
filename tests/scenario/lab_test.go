// SPDX-License-Identifier: Apache-2.0

//go:build lab

// Package scenario takes whole hosts through what the project is for. Its tests
// boot Xen in QEMU (see tools/lab), need root, and are run by name from the
// Makefile:
//
//	go test -tags lab ./tests/scenario -run TestRestoreOne
package scenario

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kemari-ft/kemari/tests/pair"
	"github.com/kemari-ft/kemari/tools/lab/control"
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
	img := filepath.Join(t.TempDir(), "demo.img")
	if err := pair.BuildGuest(ctx, img, func(s string) { t.Log(s) }); err != nil {
		t.Fatal(err)
	}
	return img
}

// small is where hosts have the kernel of guests whose kernel is not the subject:
// see image.Builder.SmallKernel.
const small = "/opt/kemari/guest/small"

// smallMiB is enough memory for it and the demonstration guest's program. All of a
// new guest's memory has to be copied: a debug build of Xen fills it with a pattern.
const smallMiB = 48

func smallKernel(ctx context.Context, t *testing.T) string {
	t.Helper()
	file, err := pair.SmallKernel(ctx, func(s string) { t.Log(s) })
	if err != nil {
		t.Fatal(err)
	}
	return file
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
	if err := control.Serve(ctx, l, func() {}); err != nil {
		t.Logf("nobody can look into the lab: %v", err)
	}
	t.Logf("the lab is in %s", l.Dir())
	began := time.Now()
	hs, err := l.Boot(hosts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d host(s) booted in %v", len(hs), time.Since(began).Round(time.Second))
	return l, hs
}

// lines logs what is written, line by line, and keeps it.
type lines struct {
	t    *testing.T
	who  string
	rest []byte
	all  strings.Builder
}

// Write logs the lines that b ends.
func (l *lines) Write(b []byte) (int, error) {
	l.all.Write(b)
	l.rest = append(l.rest, b...)
	for {
		line, rest, ok := bytes.Cut(l.rest, []byte("\n"))
		if !ok {
			return len(b), nil
		}
		l.t.Logf("%s: %s", l.who, line)
		l.rest = rest
	}
}
