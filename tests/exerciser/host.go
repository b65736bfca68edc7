// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/domctl"
	"github.com/kemari-ft/kemari/xen/foreignmem"
	"github.com/kemari-ft/kemari/xen/gntdev"
	"github.com/kemari-ft/kemari/xen/kemariop"
	"github.com/kemari-ft/kemari/xen/privcmd"
)

var smallKernel, debianKernel, ramdisk string

type host struct {
	hc  *privcmd.Handle
	ctl *domctl.Client
	fm  *foreignmem.Handle
	gnt *gntdev.Device
	nr  int // guests made
}

func openHost() (*host, error) {
	hc, err := privcmd.Open()
	if err != nil {
		return nil, err
	}
	h := &host{hc: hc}
	if h.ctl, err = domctl.New(hc); err != nil {
		return nil, err
	}
	if h.fm, err = foreignmem.Open(); err != nil {
		return nil, err
	}
	if h.gnt, err = gntdev.Open(); err != nil {
		return nil, err
	}
	return h, nil
}

func (h *host) close() error {
	return errors.Join(h.gnt.Close(), h.fm.Close(), h.ctl.Close(), h.hc.Close())
}

func xl(args ...string) (string, error) {
	out, err := exec.Command("xl", args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("xl %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return strings.TrimSpace(string(out)), nil
}

// guest is a domain of our own.
type guest struct {
	*raw
	name string
	c    *kemariop.Client
}

// smallMiB is the memory of guests with the small kernel.
const smallMiB = 48

// guestSpec is what differs between guests.
type guestSpec struct {
	kind    string // pvh
	debian  bool   // it has Debian's kernel, which boots for longer and touches more
	vcpus   int    // 1
	grant   int    // highest version of the grant table, 1
	started bool   // it runs, but has not booted yet
	running bool   // it has booted
}

// guest makes a domain, which is destroyed at the end of the case. Unless it is
// started or running it has never run.
func (t *try) guest(s guestSpec) *guest {
	if s.kind == "" {
		s.kind = "pvh"
	}
	t.nr++
	kernel, mib := smallKernel, smallMiB
	if s.debian {
		kernel, mib = debianKernel, 80
	}
	name := fmt.Sprintf("exerciser-%d-%d", os.Getpid(), t.nr)
	// Emulated CPUs mix up the VMCB of a vCPU that moves from one to the other
	// (tools/lab/README.md): all stay on the second.
	cfg := fmt.Sprintf(`name = %q
type = %q
memory = %d
vcpus = %d
kernel = %q
ramdisk = %q
extra = "console=hvc0 quiet guest.tick_ms=100"
tsc_mode = "native"
cpus = "1"
max_grant_version = %d
on_crash = "preserve"
on_poweroff = "preserve"
`, name, s.kind, mib, max(1, s.vcpus), kernel, ramdisk, max(1, s.grant))
	file := "/run/" + name + ".cfg"
	t.must(os.WriteFile(file, []byte(cfg), 0o600))
	t.later(func() { os.Remove(file) })
	_, err := xl("create", "-p", file)
	t.must(err)
	t.later(func() { xl("destroy", name) }) // it may be gone
	t.later(func() { os.Remove(logFile(name)) })
	out, err := xl("domid", name)
	t.must(err)
	id, err := strconv.ParseUint(out, 10, 15)
	t.must(err)
	g := &guest{name: name, raw: t.raw(abi.DomID(id))}
	g.c, err = kemariop.New(t.hc, g.dom)
	t.must(err)
	t.later(func() { g.c.Close() })
	if s.started || s.running {
		t.must(t.ctl.Unpause(g.dom))
	}
	if s.running {
		t.boot(g, func() { time.Sleep(100 * time.Millisecond) })
	}
	return g
}

// log is what the guest has printed.
func (g *guest) log() []byte {
	b, _ := os.ReadFile(logFile(g.name)) // absent at first
	return b
}

func logFile(name string) string { return "/var/log/xen/guest-" + name + ".log" }

// booted tells whether the guest has said something that only its init says.
func (g *guest) booted() bool { return bytes.Contains(g.log(), []byte("\ntick ")) }

const bootTime = 5 * time.Minute // in the lab, which emulates its processors

// boot waits until the guest has booted, and does f meanwhile.
func (t *try) boot(g *guest, f func()) {
	for end := time.Now().Add(bootTime); !g.booted(); f() {
		if time.Now().After(end) {
			b := g.log()
			t.must(fmt.Errorf("%s did not boot: ...%q", g.name, b[max(0, len(b)-200):]))
		}
	}
}

// say types a line on the guest's console.
func (t *try) say(g *guest, line string) {
	out, err := exec.Command("xenstore-read", fmt.Sprintf("/local/domain/%d/console/tty", g.dom)).Output()
	t.must(err)
	tty, err := os.OpenFile(strings.TrimSpace(string(out)), os.O_WRONLY|syscall.O_NOCTTY, 0)
	t.must(err)
	defer tty.Close()
	_, err = tty.WriteString(line + "\n")
	t.must(err)
}

// fill writes to the guest's store page as a back end would: by a grant copy.
func (t *try) fill(g *guest) {
	t.must(t.gnt.Copy([]gntdev.CopySegment{{
		Ref: abi.GnttabReservedXenstore, Dom: g.dom, Offset: 4000, Local: make([]byte, 8), ToGuest: true,
	}}))
}

// storeGFN is the page that fill writes to.
func (t *try) storeGFN(g *guest) abi.GFN {
	gfn, err := t.ctl.GetHVMParam(g.dom, abi.HVMParamStorePFN)
	t.must(err)
	return abi.GFN(gfn)
}
