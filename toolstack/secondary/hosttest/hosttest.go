// SPDX-License-Identifier: Apache-2.0

// Package hosttest makes hosts for tests: one with a single domain, known to
// a Xen, a xenstored and an xl that are not there.
package hosttest

import (
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
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

// Unlabeled stands for where an event channel leads that Xen's security policy lets
// nobody look at.
const Unlabeled abi.DomID = 0x7ff4 // DOMID_INVALID

// Domain is a host's one domain.
type Domain struct {
	Host *host.Host
	Dir  string // xl's files; what it was told is in the file log

	// What a test may set before the host is used.
	FreePages  uint64            // memory that the host has left
	Nodes      map[string]string // more of xenstore's
	Oxenstored bool              // xenstored can list watches; there are none
	Ports      []abi.DomID       // where the domain's event channels lead, from port 1 on

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
// xen_sysctl in sysctl.h, struct evtchn_status in event_channel.h, and struct
// xen_domctl_kemari_op in kemari.h.
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
	case abi.HypervisorEventChannelOp:
		st := privcmd.StructAt[abi.EvtchnStatus](d.Host.Hypercalls.At(a[1], int(unsafe.Sizeof(abi.EvtchnStatus{}))))
		switch {
		case a[0] != abi.EvtchnOpStatus:
			return -1, syscall.ENOSYS
		case st.Port == 0 || int(st.Port) > len(d.Ports):
			return -1, syscall.EINVAL
		}
		if d.Ports[st.Port-1] == Unlabeled {
			return -1, syscall.EACCES
		}
		st.Status, st.U[0] = abi.EvtchnStatInterdomain, uint32(d.Ports[st.Port-1])
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

// xenstored answers, and never tells of a change: see struct xsd_sockmsg in
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
		payload := make([]byte, le.Uint32(h[12:]))
		if _, err := io.ReadFull(c, payload); err != nil {
			return
		}
		asked, _, _ := strings.Cut(string(payload), "\x00")
		answer, known := d.store(le.Uint32(h[:]), asked)
		if !known {
			le.PutUint32(h[:], abi.XSError)
			answer = "ENOENT\x00"
		}
		le.PutUint32(h[12:], uint32(len(answer)))
		if _, err := c.Write(append(h[:], answer...)); err != nil {
			return
		}
	}
}

// store looks into xenstore.
func (d *Domain) store(op uint32, path string) (answer string, known bool) {
	switch op {
	case abi.XSTransactionStart:
		return "1\x00", true
	case abi.XSTransactionEnd, abi.XSWatch, abi.XSUnwatch:
		return "OK\x00", true
	case abi.XSControl:
		return "", d.Oxenstored && path == "watches"
	}
	home := fmt.Sprintf("/local/domain/%d", uint16(DomID))
	nodes := map[string]string{"/local/domain/0": "", home + "/name": d.Name()}
	maps.Copy(nodes, d.Nodes)
	value, known := nodes[path]
	below := map[string]bool{}
	for p := range nodes {
		if rest, ok := strings.CutPrefix(p, path+"/"); ok {
			name, _, _ := strings.Cut(rest, "/")
			below[name+"\x00"] = true
		}
	}
	known = known || len(below) > 0
	switch op {
	case abi.XSRead:
		return value, known
	case abi.XSDirectory:
		return strings.Join(slices.Sorted(maps.Keys(below)), ""), known
	case abi.XSGetPerms:
		return "n" + strconv.Itoa(int(DomID)) + "\x00", known
	}
	return "", false
}
