// SPDX-License-Identifier: Apache-2.0

// Package hosttest makes hosts for tests: one with a single domain, known to
// a Xen, a xenstored and an xl that are not there.
package hosttest

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"github.com/google/uuid"
	"github.com/hashicorp/go-hclog"
	"github.com/kemari-ft/kemari/toolstack/config"
	"github.com/kemari-ft/kemari/toolstack/host"
	"github.com/kemari-ft/kemari/toolstack/shell"
	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/domctl"
	"github.com/kemari-ft/kemari/xen/kemariop"
	"github.com/kemari-ft/kemari/xen/privcmd"
	"github.com/kemari-ft/kemari/xen/xenstore"
)

// DomID is the domain's.
const DomID abi.DomID = 4242

// Domain is a host's one domain.
type Domain struct {
	Host *host.Host
	Dir  string // xl's files; what it was told is in the file log

	FreePages uint64 // memory that the host has left

	mu     sync.Mutex
	uuid   uuid.UUID
	paused bool // by the toolstack
	gone   bool
	role   kemariop.Role
}

// New makes a host with a domain.
func New(t *testing.T, guest uuid.UUID, name string, paused bool, role kemariop.Role) *Domain {
	t.Helper()
	d := &Domain{Dir: t.TempDir(), uuid: guest, paused: paused, role: role}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(d.file("name"), []byte(name+"\n"), 0o600))
	must(os.WriteFile(d.file("xl"), []byte(`#!/bin/sh
cd `+d.Dir+`
echo "$*" >> log
case "$1" in
domname) [ "$2" = `+strconv.Itoa(int(DomID))+` ] && cat name ;;
rename) [ ! -f norename ] && echo "$3" > name ;;
restore) echo failed to free memory; exit 1 ;;
esac
`), 0o700))
	d.Host = &host.Host{
		Config: &config.Host{}, Log: hclog.NewNullLogger(),
		Tools:   shell.Tools{XL: d.file("xl"), Lib: d.Dir},
		Records: host.Records{Dir: d.file("records")},
	}
	d.Host.Hypercalls = privcmd.Simulated(d.hypercall)
	var err error
	d.Host.Ctl, err = domctl.New(d.Host.Hypercalls)
	must(err)
	l, err := net.Listen("unix", d.file("xenstored"))
	must(err)
	go d.xenstored(l)
	d.Host.Store, err = xenstore.Dial(d.file("xenstored"))
	must(err)
	t.Cleanup(func() {
		_ = d.Host.Store.Close()
		_ = l.Close()
	})
	return d
}

func (d *Domain) file(name string) string { return filepath.Join(d.Dir, name) }

// Name is what xl and xenstore call the domain.
func (d *Domain) Name() string {
	b, _ := os.ReadFile(d.file("name"))
	return strings.TrimSpace(string(b))
}

// Told says whether xl was told to do something.
func (d *Domain) Told(what string) bool {
	b, _ := os.ReadFile(d.file("log"))
	return strings.Contains(string(b), what)
}

// Paused says whether the toolstack holds the domain.
func (d *Domain) Paused() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.paused
}

// Destroy ends the domain.
func (d *Domain) Destroy() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.gone = true
}

// hypercall is Xen: see struct xen_domctl in xen/include/public/domctl.h, struct
// xen_sysctl in sysctl.h, and struct xen_domctl_kemari_op in kemari.h.
func (d *Domain) hypercall(op uint64, a [5]uint64) (int64, syscall.Errno) {
	const union, args, sysctlUnion = 16, 24, 8
	d.mu.Lock()
	defer d.mu.Unlock()
	switch op {
	case abi.HypervisorSysctl:
		b := d.Host.Hypercalls.At(a[0], int(unsafe.Sizeof(abi.Sysctl{})))
		if privcmd.StructAt[abi.Sysctl](b).Cmd != abi.SysctlPhysinfo {
			return -1, syscall.ENOSYS
		}
		privcmd.StructAt[abi.SysctlPhysinfoArgs](b[sysctlUnion:]).FreePages = d.FreePages
		return 0, 0
	case abi.HypervisorDomctl:
	default:
		return -1, syscall.ENOSYS
	}
	b := d.Host.Hypercalls.At(a[0], int(unsafe.Sizeof(abi.Domctl{})))
	c := privcmd.StructAt[abi.Domctl](b)
	if c.Domain != DomID || d.gone {
		return -1, syscall.ESRCH
	}
	switch c.Cmd {
	case abi.DomctlGetDomainInfo:
		info := abi.DomctlDomainInfo{Domain: DomID, Flags: abi.DomInfHVMGuest, Handle: d.uuid}
		if d.paused {
			info.Flags |= abi.DomInfPaused
		}
		*privcmd.StructAt[abi.DomctlDomainInfo](b[union:]) = info
	case abi.DomctlUnpauseDomain:
		d.paused = false
	case kemariop.DomctlKemariOp: // only STATUS has an answer
		binary.LittleEndian.PutUint32(b[args:], kemariop.InterfaceVersion)
		binary.LittleEndian.PutUint32(b[args+4:], uint32(d.role))
	default:
		return -1, syscall.ENOSYS
	}
	return 0, 0
}

// xenstored knows the domain and its name: see struct xsd_sockmsg in
// xen/include/public/io/xs_wire.h.
func (d *Domain) xenstored(l net.Listener) {
	c, err := l.Accept()
	if err != nil {
		return
	}
	defer c.Close()
	le := binary.LittleEndian
	for {
		var h [16]byte
		if _, err := io.ReadFull(c, h[:]); err != nil {
			return
		}
		path := make([]byte, le.Uint32(h[12:]))
		if _, err := io.ReadFull(c, path); err != nil {
			return
		}
		answer := "ENOENT\x00"
		switch asked := strings.TrimRight(string(path), "\x00"); {
		case le.Uint32(h[:]) == abi.XSDirectory && asked == "/local/domain":
			answer = "0\x00" + strconv.Itoa(int(DomID)) + "\x00"
		case le.Uint32(h[:]) == abi.XSRead && asked == fmt.Sprintf("/local/domain/%d/name", uint16(DomID)):
			answer = d.Name()
		default:
			le.PutUint32(h[:], abi.XSError)
		}
		le.PutUint32(h[12:], uint32(len(answer)))
		if _, err := c.Write(append(h[:], answer...)); err != nil {
			return
		}
	}
}
