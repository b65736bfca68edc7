// SPDX-License-Identifier: Apache-2.0

// Package cache keeps what the lab downloaded and built. The name of an
// artefact holds a hash of everything it was made from, so that an artefact
// found is an artefact valid, and several checkouts can share one directory.
package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// A Store is a cache directory.
type Store struct{ dir string }

// Open returns the cache at $KEMARI_CACHE, or at .cache beside the go.mod
// above the working directory, and creates it if need be.
func Open() (*Store, error) {
	dir := os.Getenv("KEMARI_CACHE")
	if dir == "" {
		root, err := ModuleRoot()
		if err != nil {
			return nil, fmt.Errorf("cache: %w; set KEMARI_CACHE to a directory", err)
		}
		dir = filepath.Join(root, ".cache")
	}
	return OpenDir(dir)
}

// OpenDir returns the cache at dir.
func OpenDir(dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(dir, "locks"), 0o755); err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	// The directory hides itself from version control.
	if err := os.WriteFile(filepath.Join(dir, ".gitignore"), []byte("*\n"), 0o644); err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	return &Store{dir}, nil
}

// Dir is where the artefacts lie.
func (s *Store) Dir() string { return s.dir }

// ModuleRoot finds the directory of go.mod above the working directory.
func ModuleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("no go.mod above the working directory")
		}
		dir = up
	}
}

// Path is where the artefact of that name and key lies, or would lie.
func (s *Store) Path(name string, key *Key) string {
	base, ext := name, ""
	if i := strings.IndexByte(name, '.'); i > 0 {
		base, ext = name[:i], name[i:]
	}
	return filepath.Join(s.dir, base+"-"+key.String()+ext)
}

// Get returns the path of an artefact, and makes it first if it is missing:
// build is given a path that does not exist yet, at which it leaves a file or
// a directory. Only one process builds an artefact, the others wait for it.
func (s *Store) Get(ctx context.Context, name string, key *Key, build func(ctx context.Context, out string) error) (string, error) {
	path := s.Path(name, key)
	if exists(path) {
		return path, nil
	}
	unlock, err := s.Lock(filepath.Base(path))
	if err != nil {
		return "", err
	}
	defer unlock()
	if exists(path) {
		return path, nil // another process built it while we waited
	}
	if err := ctx.Err(); err != nil {
		return "", context.Cause(ctx)
	}
	out := filepath.Join(s.dir, "new."+filepath.Base(path))
	if err := os.RemoveAll(out); err != nil { // of a build that was interrupted
		return "", fmt.Errorf("cache: %w", err)
	}
	if err := build(ctx, out); err != nil {
		return "", fmt.Errorf("making %s: %w", name, err)
	}
	if err := os.Rename(out, path); err != nil {
		return "", fmt.Errorf("cache: %w", err)
	}
	return path, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// Lock takes the exclusive lock of that name, of all processes with this cache; the
// kernel drops it when the process dies.
func (s *Store) Lock(name string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(s.dir, "locks", name), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("cache: locking %s: %w", f.Name(), err)
	}
	return func() { f.Close() }, nil
}
