// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/google/uuid"
	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/domctl"
	"github.com/kemari-ft/kemari/xen/kemariop"
)

// Identity is what a host says of itself in HELLO.
type Identity struct {
	UUID       uuid.UUID
	TSCkHz     uint32
	CPUVendor  string
	XenVersion string
}

// Hello makes this host's HELLO about a guest.
func (id Identity) Hello(role stream.Role, guest uuid.UUID, dom abi.DomID) stream.Hello {
	return stream.Hello{
		Role: role, ABI: kemariop.InterfaceVersion, Guest: guest, Host: id.UUID,
		DomID: dom, TSCkHz: id.TSCkHz, CPUVendor: id.CPUVendor, XenVersion: id.XenVersion,
	}
}

func identify(ctl *domctl.Client, file string) (id Identity, err error) {
	if id.UUID, err = hostUUID(file); err != nil {
		return id, err
	}
	phys, err := ctl.Physinfo()
	if err != nil {
		return id, err
	}
	id.TSCkHz = phys.CPUkHz
	v, err := ctl.Version()
	if err != nil {
		return id, err
	}
	id.XenVersion = v.String()
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return id, err
	}
	id.CPUVendor, err = vendor(info)
	return id, err
}

// hostUUID makes up a name for this host at the first start.
func hostUUID(file string) (uuid.UUID, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		id := uuid.New()
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return id, err
		}
		return id, renameio.WriteFile(file, []byte(id.String()+"\n"), 0o600)
	}
	if err != nil {
		return uuid.UUID{}, err
	}
	id, err := uuid.Parse(strings.TrimSpace(string(b)))
	if err != nil {
		return id, fmt.Errorf("%s: %w", file, err)
	}
	return id, nil
}

// vendor finds the vendor_id of /proc/cpuinfo.
func vendor(info []byte) (string, error) {
	lines := bufio.NewScanner(bytes.NewReader(info))
	for lines.Scan() {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == "vendor_id" {
			return strings.TrimSpace(value), nil
		}
	}
	return "", errors.New("/proc/cpuinfo names no vendor_id")
}
