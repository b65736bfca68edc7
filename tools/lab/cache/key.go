// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// A Key is a hash of named inputs, in the order they are added.
type Key struct{ h hash.Hash }

// NewKey returns a key without inputs.
func NewKey() *Key { return &Key{sha256.New()} }

// String is short enough for a file name; 64 bits are plenty for a cache that
// holds dozens of artefacts of its owner's making.
func (k *Key) String() string { return hex.EncodeToString(k.h.Sum(nil)[:8]) }

// Add adds values. Each is framed, so that ("ab", "c") and ("a", "bc") differ.
func (k *Key) Add(values ...string) *Key {
	for _, v := range values {
		fmt.Fprintf(k.h, "%d:%s", len(v), v)
	}
	return k
}

// AddFile adds the content of a file under a name of the caller's choice.
func (k *Key) AddFile(name, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	fh := sha256.New()
	if _, err := io.Copy(fh, f); err != nil {
		return err
	}
	k.Add("file", name, string(fh.Sum(nil)))
	return nil
}

// AddTree adds the names, modes and contents of everything below dir for
// which skip, given the path relative to dir, does not return true.
func (k *Key) AddTree(dir string, skip func(rel string) bool) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if rel != "." && skip != nil && skip(rel) {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		switch {
		case d.Type().IsRegular():
			info, err := d.Info()
			if err != nil {
				return err
			}
			if info.Mode()&0o111 != 0 {
				k.Add("executable")
			}
			return k.AddFile(filepath.ToSlash(rel), path)
		case d.Type()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			k.Add("link", filepath.ToSlash(rel), to)
		}
		return nil
	})
}

// SkipBuilt skips what a build leaves in a source tree, and version control.
func SkipBuilt(rel string) bool {
	base := filepath.Base(rel)
	switch filepath.Ext(base) {
	case ".o", ".d", ".a", ".cmd":
		return true
	}
	return base == ".git" || strings.HasPrefix(base, ".#")
}
