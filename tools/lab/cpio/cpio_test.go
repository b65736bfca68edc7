// SPDX-License-Identifier: Apache-2.0

package cpio

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestUnpacks has another implementation unpack an archive.
func TestUnpacks(t *testing.T) {
	tool, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("no busybox to unpack with")
	}
	var b bytes.Buffer
	w := NewWriter(&b)
	w.Dir("d")
	w.File("d/odd", 0o755, []byte("12345"))
	w.File("d/empty", 0o644, nil)
	w.Symlink("link", "d/odd")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if b.Len()%4 != 0 {
		t.Errorf("the archive has %d octets, not a multiple of 4", b.Len())
	}
	dir := t.TempDir()
	cmd := exec.Command(tool, "cpio", "-i")
	cmd.Dir, cmd.Stdin = dir, &b
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "link")); err != nil || string(got) != "12345" {
		t.Errorf("link holds %q, %v", got, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "d/odd")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("mode %v, %v", info, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "d/empty")); err != nil || info.Size() != 0 {
		t.Errorf("empty file: %v, %v", info, err)
	}
}
