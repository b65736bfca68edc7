// SPDX-License-Identifier: Apache-2.0

package image

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestTarballURI(t *testing.T) {
	pinned := "'http://mirror.invalid/debian/pool/main/x/xen/xen_4.20.3%2b127-gc42374a105.orig.tar.xz' " + xenTarball + " 5 SHA256:df"
	debian := "'http://mirror.invalid/debian/pool/main/x/xen/xen_4.20.3%2b127-gc42374a105-1.debian.tar.xz' x 5 SHA256:0\n"
	later := "'http://mirror.invalid/debian/pool/main/x/xen/xen_4.20.4.orig.tar.xz' xen_4.20.4.orig.tar.xz 5 SHA256:1"
	const want = "http://mirror.invalid/debian/pool/main/x/xen/xen_4.20.3%2b127-gc42374a105.orig.tar.xz"
	for _, c := range []struct{ listed, newer string }{
		{debian + pinned, ""},
		{debian + later, "xen_4.20.4.orig.tar.xz"},
	} {
		uri, newer, err := tarballURI([]byte(c.listed))
		if err != nil || uri != want || newer != c.newer {
			t.Errorf("%q: %q, %q, %v; want %q, %q", c.listed, uri, newer, err, want, c.newer)
		}
	}
	if _, _, err := tarballURI([]byte(debian)); err == nil {
		t.Error("no error although no upstream tarball is listed")
	}
}

func TestSeries(t *testing.T) {
	b := &Builder{root: t.TempDir()}
	t.Setenv("XEN_SRC", "")
	if got, err := b.series(); err != nil || got != nil {
		t.Errorf("without a series: %v, %v", got, err)
	}
	dir := filepath.Join(b.root, "hvpatch")
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("series", "# the order\n0001-a.patch\n\n0002-b.patch # last\n")
	got, err := b.series()
	want := []string{filepath.Join(dir, "0001-a.patch"), filepath.Join(dir, "0002-b.patch")}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("series: %v, %v; want %v", got, err, want)
	}
	write("0001-a.patch", "--- a/xen/x.c\n+++ b/xen/x.c\n")
	write("0002-b.patch", "--- a/tools/tests/x.c\n+++ b/tools/tests/x.c\n")
	if touched, err := b.toolsTouched(); err != nil || touched {
		t.Errorf("a series that leaves xl alone: %v, %v", touched, err)
	}
	write("0002-b.patch", "--- a/tools/xl/xl.c\n+++ b/tools/xl/xl.c\n")
	if touched, err := b.toolsTouched(); err != nil || !touched {
		t.Errorf("a series that changes xl: %v, %v", touched, err)
	}
}
