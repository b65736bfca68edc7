// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/kemari-ft/kemari/tools/lab/channel"
)

// A Host is one Xen host: a QEMU process from power-on to power cut.
type Host struct {
	Name   string // a to h
	Number int    // 1 for a; the host's address on network i is 10.0.i.Number

	lab     *Lab
	dir     string
	m       *machine
	console *Console
	agent   *channel.Client
	qmp     *qmp

	mu    sync.Mutex
	crash error // protected by mu; what the console said when Xen or dom0 died
}

// bootTimeout is generous: a host takes 20 s alone, more when the machine
// outside is busy.
const bootTimeout = 5 * time.Minute

// powerOn starts QEMU and returns at once.
func (l *Lab) powerOn(name string, number int) (*Host, error) {
	h := &Host{Name: name, Number: number, lab: l, m: newMachine()}
	var err error
	if h.dir, err = os.MkdirTemp(l.cfg.Dir, name+"-"); err != nil {
		return nil, err
	}
	if err := h.configure(); err != nil {
		h.m.close()
		return nil, fmt.Errorf("host %s: %w", name, err)
	}
	if err := h.m.start(l.qemu, h.dir, filepath.Join(h.dir, "qemu.log")); err != nil {
		return nil, fmt.Errorf("host %s: %w", name, err)
	}
	return h, nil
}

func (h *Host) configure() error {
	l, m := h.lab, h.m
	xenArgs := "com1=115200 console=com1 loglvl=info guest_loglvl=warning noreboot spec-ctrl=no cpuidle=no " +
		fmt.Sprintf("dom0_mem=%dM,max:%dM dom0_max_vcpus=1 ", l.cfg.Dom0MiB, l.cfg.Dom0MiB) + l.cfg.XenArgs
	// Where the machine outside is busy, Linux now and then takes the TSC for unstable,
	// and each look at the clock is a system call from then on: some 70 in a pause.
	linuxArgs := fmt.Sprintf("console=hvc0 quiet mitigations=off tsc=nowatchdog net.ifnames=0 panic=-1 lab.host=%s lab.n=%d lab.nets=%s",
		h.Name, h.Number, strings.Join(l.cfg.Nets, ":"))
	m.add("-name", h.Name,
		"-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", cpuModel,
		"-smp", fmt.Sprint(l.cfg.SMP), "-m", fmt.Sprint(l.cfg.MemoryMiB),
		"-display", "none", "-no-reboot", "-nodefaults",
		"-kernel", l.xen, "-append", xenArgs,
		"-initrd", l.dom0.Kernel+" "+linuxArgs+","+l.dom0.Initrd)
	drive := func(id, serial, spec string) {
		m.add("-drive", "if=none,id="+id+",format=raw,"+spec,
			"-device", "virtio-blk-pci,drive="+id+",serial="+serial)
	}
	drive("root", "kemari-root", "snapshot=on,file="+l.dom0.Disk)
	drive("tools", "kemari-tools", "readonly=on,file="+l.tools)
	for _, name := range l.cfg.LUNs {
		// A write that fails is the guest's to see, not a reason to stop the host.
		// Each request is logged as the host made it: merged with its neighbour
		// it could not be found again in the log.
		m.add("-drive", fmt.Sprintf("if=none,id=lun-%s,format=raw,cache=none,discard=unmap,rerror=report,werror=report,"+
			"file.driver=nbd,file.server.type=unix,file.server.path=%s,file.export=%s", name, l.socket(name), h.Name),
			"-device", fmt.Sprintf("virtio-blk-pci,drive=lun-%s,serial=lun-%s,request-merging=off", name, name))
	}
	for i, name := range l.cfg.Nets {
		conn, fd, err := m.pair("net-" + name)
		if err != nil {
			return err
		}
		m.add("-netdev", fmt.Sprintf("stream,id=net%d,server=off,addr.type=fd,addr.str=%d", i, fd),
			"-device", fmt.Sprintf("virtio-net-pci,netdev=net%d,mac=52:54:00:4b:%02x:%02x,romfile=", i, i, h.Number))
		l.nets[name].Plug(h.Name, conn)
	}
	m.add("-gdb", "unix:gdb.sock,server=on,wait=off") // in h.dir, whose full name may be too long

	serial, err := m.chardev("serial")
	if err != nil {
		return err
	}
	m.add("-serial", "chardev:serial")
	if h.console, err = newConsole(h.Name, serial, filepath.Join(h.dir, "console.log")); err != nil {
		return err
	}
	monitor, err := m.chardev("monitor")
	if err != nil {
		return err
	}
	m.add("-mon", "chardev=monitor,mode=control")
	h.qmp = newQMP(monitor)

	// A queue that is not there is not polled by QEMU: two ports, and the console's.
	m.add("-device", "virtio-serial-pci,max_ports=3")
	agent, err := m.chardev("agent")
	if err != nil {
		return err
	}
	m.add("-device", "virtserialport,chardev=agent,name=org.kemari.agent")
	h.agent = channel.NewClient(agent)
	fence, err := m.chardev("fence")
	if err != nil {
		return err
	}
	m.add("-device", "virtserialport,chardev=fence,name=org.kemari.fence")
	go l.serveFence(h.Name, fence)
	go func() {
		if h.watchForCrash() {
			// Nobody answers any more: end what waits for an answer.
			agent.Close()
		}
	}()
	return nil
}

// waitUp waits until commands can run in dom0 and its daemons are there.
func (h *Host) waitUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, bootTimeout, fmt.Errorf("no answer within %v", bootTimeout))
	defer cancel()
	if err := h.agent.Ready(ctx); err != nil {
		text, _ := h.console.Since(0)
		return fmt.Errorf("host %s did not come up: %w; see %s; last lines:\n%s", h.Name, h.explain(err), h.dir, lastLines(text))
	}
	return nil
}

// crashed matches what Xen and dom0's kernel print last. Guests' output on the
// Xen console begins with their domid and does not count.
var crashed = regexp.MustCompile(`(?m)^(\(XEN\) Panic on CPU \d+:|\[[ 0-9.]+\] Kernel panic - not syncing)`)

// watchForCrash returns true when the console shows the end of Xen or dom0,
// and false when the host lost its power before.
func (h *Host) watchForCrash() bool {
	from := 0
	for {
		text, more := h.console.Since(from)
		if at := crashed.FindIndex(text); at != nil {
			time.Sleep(time.Second) // for the rest of it to be printed
			text, _ = h.console.Since(from + at[0])
			h.mu.Lock()
			h.crash = fmt.Errorf("host %s crashed, see %s:\n%s", h.Name, filepath.Join(h.dir, "console.log"), text)
			h.mu.Unlock()
			return true
		}
		from += bytes.LastIndexByte(text, '\n') + 1
		if more == nil {
			return false
		}
		<-more
	}
}

// explain adds the crash, if there was one, to the error it led to.
func (h *Host) explain(err error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.crash == nil || !errors.Is(err, channel.ErrClosed) {
		return err
	}
	return fmt.Errorf("%w: %w", err, h.crash)
}

// Dir holds console.log, qemu.log and gdb.sock.
func (h *Host) Dir() string { return h.dir }

// Console is the host's serial port.
func (h *Host) Console() *Console { return h.console }

// Dead is closed when the host has lost its power, or QEMU ended by itself.
func (h *Host) Dead() <-chan struct{} { return h.m.dead }

func (h *Host) isDead() bool {
	select {
	case <-h.Dead():
		return true
	default:
		return false
	}
}

// Cut takes the power away: SIGKILL to QEMU, and it returns when the process
// is gone. Cutting a dead host does nothing.
func (h *Host) Cut() { h.m.cut() }

// QMP sends a command to QEMU's monitor.
func (h *Host) QMP(ctx context.Context, command string, args any) (json.RawMessage, error) {
	return h.qmp.do(ctx, command, args)
}

// Monitor runs a command of QEMU's human monitor, such as "info registers".
func (h *Host) Monitor(ctx context.Context, line string) (string, error) {
	answer, err := h.QMP(ctx, "human-monitor-command", map[string]string{"command-line": line})
	if err != nil {
		return "", fmt.Errorf("host %s: %w", h.Name, err)
	}
	var text string
	err = json.Unmarshal(answer, &text)
	return text, err
}

// A State is what a host looks like from outside.
type State string

const (
	Booting State = "booting" // dom0 does not answer yet
	Up      State = "up"      // commands can run in dom0
	Crashed State = "crashed" // Xen or dom0 panicked; QEMU still runs
	Dead    State = "dead"    // no power
)

// State tells the host's state.
func (h *Host) State() State {
	if h.isDead() {
		return Dead
	}
	select {
	case <-h.agent.Done():
		return Crashed
	default:
	}
	if h.agent.Greeted() {
		return Up
	}
	return Booting
}
