// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func open(t *testing.T) *Store {
	t.Helper()
	s, err := OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestBuiltOnceByMany(t *testing.T) {
	s := open(t)
	var builds atomic.Int32
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			path, err := s.Get(t.Context(), "thing.img", NewKey().Add("x"), func(_ context.Context, out string) error {
				builds.Add(1)
				return os.WriteFile(out, []byte("content"), 0o644)
			})
			if err != nil {
				t.Error(err)
				return
			}
			if text, err := os.ReadFile(path); err != nil || string(text) != "content" {
				t.Errorf("%s: %q, %v", path, text, err)
			}
		})
	}
	wg.Wait()
	if n := builds.Load(); n != 1 {
		t.Errorf("built %d times", n)
	}
}

func TestFailedBuildLeavesNothing(t *testing.T) {
	s := open(t)
	boom := errors.New("boom")
	_, err := s.Get(t.Context(), "thing", NewKey(), func(_ context.Context, out string) error {
		os.Mkdir(out, 0o755)
		os.WriteFile(filepath.Join(out, "half"), nil, 0o644)
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatalf("error %v, want %v", err, boom)
	}
	path, err := s.Get(t.Context(), "thing", NewKey(), func(_ context.Context, out string) error {
		return os.Mkdir(out, 0o755) // fails if the remains are still there
	})
	if err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(path); err != nil || len(left) != 0 {
		t.Errorf("the artefact holds %v, %v", left, err)
	}
}

func TestPathsAndKeys(t *testing.T) {
	s := open(t)
	p := filepath.Base(s.Path("xen.orig.tar.xz", NewKey().Add("v1")))
	if !strings.HasPrefix(p, "xen-") || !strings.HasSuffix(p, ".orig.tar.xz") {
		t.Errorf("path %s", p)
	}
	if a, b := NewKey().Add("ab", "c").String(), NewKey().Add("a", "bc").String(); a == b {
		t.Error("two lists of values have one key")
	}
}

func TestTreeKeySeesEveryChange(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "sub", "f.c")
	key := func() string {
		k := NewKey()
		if err := k.AddTree(dir, SkipBuilt); err != nil {
			t.Fatal(err)
		}
		return k.String()
	}
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(filepath.Dir(file), 0o755))
	seen := map[string]string{key(): "the empty tree"}
	for _, c := range []struct {
		what string
		do   func() error
	}{
		{"a new file", func() error { return os.WriteFile(file, []byte("1"), 0o644) }},
		{"new content", func() error { return os.WriteFile(file, []byte("2"), 0o644) }},
		{"a mode", func() error { return os.Chmod(file, 0o755) }},
		{"a name", func() error { return os.Rename(file, filepath.Join(dir, "g.c")) }},
		{"a link", func() error { return os.Symlink("g.c", filepath.Join(dir, "l")) }},
	} {
		must(c.do())
		k := key()
		if was, ok := seen[k]; ok {
			t.Errorf("after %s the key is that of %s", c.what, was)
		}
		seen[k] = c.what
	}
	before := key()
	must(os.WriteFile(filepath.Join(dir, "g.o"), nil, 0o644))
	if key() != before {
		t.Error("an object file changes the key")
	}
}
