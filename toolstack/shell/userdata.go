// SPDX-License-Identifier: Apache-2.0

package shell

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/google/renameio/v2"
	"github.com/kemari-ft/kemari/toolstack/shell/xlstream"
	"github.com/kemari-ft/kemari/xen/abi"
)

// userdata is the path of one of libxl's files about a domain; see
// tools/libs/light/libxl_dom.c: libxl__userdata_path().
func (t Tools) userdata(kind string, dom abi.DomID, uuid, name string) string {
	return filepath.Join(t.lib(), fmt.Sprintf("userdata-%s.%d.%s.%s", kind, uint16(dom), strings.ToLower(uuid), name))
}

// LoadConfig reads and checks the configuration that libxl keeps of a live
// domain.
func (t Tools) LoadConfig(dom abi.DomID, uuid string) (*xlstream.Config, error) {
	return t.load(dom, uuid, "libxl-json")
}

func (t Tools) load(dom abi.DomID, uuid, name string) (*xlstream.Config, error) {
	data, err := os.ReadFile(t.userdata("d", dom, uuid, name))
	if err != nil {
		return nil, fmt.Errorf("configuration of domain %d (was it created by xl?): %w", uint16(dom), err)
	}
	cfg, err := xlstream.ParseConfig(data)
	if err != nil {
		return nil, fmt.Errorf("domain %d: %w", uint16(dom), err)
	}
	return cfg, nil
}

// active is what a shell's libxl-json is to be replaced by. As libxl's own
// files of a domain, it ends with the domain (libxl__userdata_destroyall()).
const active = "kemari-json"

// keepActive keeps the guest's configuration beside its shell's, for a daemon
// that finds the guest activated, but not quite.
func (t Tools) keepActive(dom abi.DomID, cfg *xlstream.Config) error {
	json, err := cfg.Active()
	if err != nil {
		return err
	}
	return renameio.WriteFile(t.userdata("d", dom, cfg.UUID(), active), json, 0o600, renameio.WithTempDir(t.lib()))
}

func (t Tools) dropActive(dom abi.DomID, uuid string) error {
	err := os.Remove(t.userdata("d", dom, uuid, active))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Unfinished returns the configuration of a shell's guest for which Activate
// has not succeeded yet, nil if it has.
func (t Tools) Unfinished(dom abi.DomID, uuid string) (*xlstream.Config, error) {
	cfg, err := t.load(dom, uuid, active)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return cfg, err
}

// SaveConfig replaces the configuration that libxl keeps of a live domain,
// under libxl's own lock.
func (t Tools) SaveConfig(dom abi.DomID, uuid string, json []byte) error {
	unlock, err := lockFile(t.userdata("l", dom, uuid, "domain-userdata-lock"))
	if err != nil {
		return fmt.Errorf("configuration of domain %d: %w", uint16(dom), err)
	}
	defer unlock()
	// libxl reads the file as a C string.
	data := append(append([]byte{}, json...), 0)
	file := t.userdata("d", dom, uuid, "libxl-json")
	if _, err := os.Stat(file); err != nil {
		return fmt.Errorf("configuration of domain %d (is it still there?): %w", uint16(dom), err)
	}
	if err := renameio.WriteFile(file, data, 0o600, renameio.WithTempDir(t.lib())); err != nil {
		return fmt.Errorf("replace configuration of domain %d: %w", uint16(dom), err)
	}
	return nil
}

// lockFile takes a lock as libxl__lock_file() does: flock, then make certain
// that the file locked is still the one of that name, for libxl unlinks it
// before it lets go.
func lockFile(path string) (unlock func(), err error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
		if err != nil {
			return nil, err
		}
		for {
			err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
			if err != syscall.EINTR {
				break
			}
		}
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		held, err1 := f.Stat()
		named, err2 := os.Stat(path)
		if err1 == nil && err2 == nil && os.SameFile(held, named) {
			return func() {
				os.Remove(path)
				f.Close()
			}, nil
		}
		f.Close()
		if err1 != nil {
			return nil, err1
		}
		if err2 != nil && !os.IsNotExist(err2) {
			return nil, err2
		}
	}
}
