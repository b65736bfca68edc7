// SPDX-License-Identifier: Apache-2.0

package initramfs

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// kernelDir is /lib/modules/VERSION of a kernel with two modules and a built-in.
func kernelDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range map[string]string{
		"modules.builtin":                         "kernel/drivers/virtio/virtio_pci.ko\n",
		"kernel/drivers/block/xen-blkfront.ko.xz": "blkfront",
		"kernel/drivers/net/xen-netfront.ko":      "netfront",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func build(t *testing.T, modulesDir string, modules ...string) (archive []byte, err error) {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, []byte("\x7fELF program"), 0o644); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out.img")
	if err := Build(out, program, modulesDir, modules); err != nil {
		if _, stat := os.Stat(out); stat == nil {
			t.Error("a failed build left an image behind")
		}
		return nil, err
	}
	packed, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	archive, err = io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return archive, nil
}

// The cpio program is the judge of the format, where it is installed.
func TestBuildIsAnArchiveCPIOReads(t *testing.T) {
	cpio, err := exec.LookPath("cpio")
	if err != nil {
		t.Skip("no cpio program to read the archive with")
	}
	archive, err := build(t, kernelDir(t), "xen_netfront", "xen-blkfront", "virtio_pci")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(cpio, "-itv", "--quiet", "--numeric-uid-gid")
	cmd.Stdin = bytes.NewReader(archive)
	list, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("cpio: %v\n%s", err, list)
	}
	for _, want := range []struct{ mode, tail string }{
		{"crw-------", "5,   1 Jan  1  1970 dev/console"},
		{"-rwxr-xr-x", "init"},
		{"lrwxrwxrwx", "sbin/poweroff -> /init"},
		{"lrwxrwxrwx", "sbin/reboot -> /init"},
		{"drwxr-xr-x", "proc"},
		{"-rw-r--r--", "modules/00-xen-netfront.ko"},
		{"-rw-r--r--", "modules/01-xen-blkfront.ko.xz"},
	} {
		found := false
		for line := range strings.Lines(string(list)) {
			line = strings.TrimSpace(line)
			found = found || strings.HasPrefix(line, want.mode) && strings.HasSuffix(line, want.tail)
		}
		if !found {
			t.Errorf("no %s %s in\n%s", want.mode, want.tail, list)
		}
	}
	if strings.Contains(string(list), "virtio_pci") {
		t.Errorf("a built-in module was looked for or packed:\n%s", list)
	}
	cmd = exec.Command(cpio, "-i", "--quiet", "--to-stdout", "init", "modules/00-xen-netfront.ko")
	cmd.Stdin = bytes.NewReader(archive)
	if data, err := cmd.Output(); err != nil || string(data) != "\x7fELF programnetfront" {
		t.Errorf("contents read back: %q, %v", data, err)
	}
}

func TestBuildSameInputSameBytes(t *testing.T) {
	dir := kernelDir(t)
	a, err := build(t, dir, "xen-blkfront")
	if err != nil {
		t.Fatal(err)
	}
	b, err := build(t, dir, "xen-blkfront")
	if err != nil || !bytes.Equal(a, b) {
		t.Errorf("two builds differ (%v)", err)
	}
}

func TestBuildNamesEveryModuleItLacks(t *testing.T) {
	_, err := build(t, kernelDir(t), "xen-blkfront", "xen-blkback", "xen-kbdfront")
	if err == nil || !strings.Contains(err.Error(), "xen-blkback") || !strings.Contains(err.Error(), "xen-kbdfront") {
		t.Errorf("got %v, want both missing modules named", err)
	}
	if _, err := build(t, t.TempDir(), "xen-blkfront"); err == nil || !strings.Contains(err.Error(), "modules.builtin") {
		t.Errorf("a directory that is no kernel's: got %v", err)
	}
}

func TestBuildNeedsNoModules(t *testing.T) {
	if _, err := build(t, "/nonexistent"); err != nil {
		t.Error(err)
	}
}
