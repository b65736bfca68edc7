// SPDX-License-Identifier: Apache-2.0

// Restoreone proves the principle on one host, in dom0: it synchronises a
// running guest once to a file, destroys the domain, makes a shell with the
// same domid, and lets the guest go on in it.
//
//	restoreone save DOMID FILE     synchronise, write FILE, destroy
//	restoreone restore FILE        make the shell, let the guest go on
//	restoreone sync DOMID MS N     N syncs, one each MS milliseconds
//	restoreone loop [-cfg FILE] [-rounds N] [-boot M]
//
// loop takes one guest through N rounds, judging its clocks, its memory and its
// ticks after each, and M more guests through one round at an instant of their
// boot. Every other round the guest is paused for a moment before it is
// synchronised, so that events lie in its queues.
package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/kemari-ft/kemari/toolstack/primary"
	"github.com/kemari-ft/kemari/toolstack/secondary"
	"github.com/kemari-ft/kemari/toolstack/shell"
	"github.com/kemari-ft/kemari/toolstack/shell/xlstream"
	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/domctl"
	"github.com/kemari-ft/kemari/xen/foreignmem"
	"github.com/kemari-ft/kemari/xen/kemariop"
	"github.com/kemari-ft/kemari/xen/privcmd"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "restoreone:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	h, err := open()
	if err != nil {
		return err
	}
	switch {
	case len(args) == 3 && args[0] == "save":
		n, err := strconv.ParseUint(args[1], 10, 15)
		if err != nil {
			return err
		}
		dom := abi.DomID(n)
		found, err := h.save(dom, args[2], time.Second, false)
		if err != nil {
			return err
		}
		fmt.Println("saved", found)
		return (shell.Tools{}).Destroy(context.Background(), dom)
	case len(args) == 4 && args[0] == "sync":
		var n [3]uint64
		for i := range n {
			if n[i], err = strconv.ParseUint(args[i+1], 10, 15); err != nil {
				return err
			}
		}
		return h.sync(abi.DomID(n[0]), time.Duration(n[1])*time.Millisecond, int(n[2]))
	case len(args) == 2 && args[0] == "restore":
		took, err := h.restore(args[1])
		if err != nil {
			return err
		}
		fmt.Println("resumed", took, "after the last page")
		return nil
	case len(args) > 0 && args[0] == "loop":
		flags := flag.NewFlagSet("loop", flag.ExitOnError)
		cfg := flags.String("cfg", "/opt/kemari/guest/restoreone.cfg", "xl.cfg of the guest")
		rounds := flags.Int("rounds", 10, "rounds of the long-lived guest")
		boot := flags.Int("boot", 0, "guests saved while they boot")
		seed := flags.Int64("seed", 1, "of the instants")
		flags.Parse(args[1:])
		return h.loop(*cfg, *rounds, *boot, *seed)
	}
	return errors.New("usage: restoreone save DOMID FILE | restore FILE | sync DOMID MS N | loop [-cfg FILE] [-rounds N] [-boot M]")
}

type host struct {
	hc  *privcmd.Handle
	ctl *domctl.Client
	fm  *foreignmem.Handle

	// The guest's last absence: it was stopped at an instant between the first
	// two, and went on at one between the others.
	stopping, stopped, resuming, resumed time.Time
}

func open() (*host, error) {
	hc, err := privcmd.Open()
	if err != nil {
		return nil, err
	}
	ctl, err := domctl.New(hc)
	if err != nil {
		return nil, err
	}
	fm, err := foreignmem.Open()
	if err != nil {
		return nil, err
	}
	return &host{hc: hc, ctl: ctl, fm: fm}, nil
}

// found says what a sync met.
type found struct {
	Dirty, Always, State uint32
	Harvest              time.Duration
	Queued, Timers       int // events linked in FIFO queues, timers armed
	Online               int // vCPUs
}

func (f found) String() string {
	return fmt.Sprintf("harvest %v, %d dirty, %d always, state %d octets, %d events queued, %d timers, %d vCPUs up",
		f.Harvest, f.Dirty, f.Always, f.State, f.Queued, f.Timers, f.Online)
}

var enable = kemariop.EnableParams{Role: kemariop.RolePrimary, DirtyMax: 32768, DirtyMark: 24576}

// save writes a running guest's state to a file and leaves it frozen. Between
// the moment the hypervisor begins to watch the guest and the sync lies wait:
// long enough, and the guest sleeps with its timers armed. With queue, timers
// expire and events come in while the guest is paused.
func (h *host) save(dom abi.DomID, file string, wait time.Duration, queue bool) (f found, err error) {
	info, err := h.ctl.DomainInfo(dom)
	if err != nil {
		return f, err
	}
	id := uuid.UUID(info.UUID)
	config, err := (shell.Tools{}).LoadConfig(dom, id.String())
	if err != nil {
		return f, err
	}
	raw, err := config.Active()
	if err != nil {
		return f, err
	}
	op, err := kemariop.New(h.hc, dom)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, op.Close()) }()
	status, err := op.Enable(enable)
	if err != nil {
		return f, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, op.Disable())
		}
	}()
	if err := h.passDaemons(op, dom); err != nil {
		return f, err
	}
	// It may have been stopped at an output before.
	r, err := h.freeze(op, false)
	if err == nil {
		err = op.Release(r.Epoch, kemariop.ReleaseOut|kemariop.ReleaseUnpause)
	}
	if err != nil {
		return f, err
	}
	c, err := primary.AdoptCapture(op, h.fm, h.ctl, status)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	time.Sleep(wait)
	if r, err = h.freeze(op, queue); err != nil {
		return f, err
	}
	if f, err = h.look(c, r); err != nil {
		return f, err
	}

	d, err := primary.Describe(h.ctl, c.Memory(), dom, raw)
	if err != nil {
		return f, err
	}
	blob, err := d.Encode()
	if err != nil {
		return f, err
	}
	out, err := os.Create(file)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	buf := bufio.NewWriterSize(out, 1<<20)
	w := stream.NewWriter(buf)
	phys, err := h.ctl.Physinfo()
	if err != nil {
		return f, err
	}
	if err := w.Hello(stream.Hello{Role: stream.Primary, ABI: kemariop.InterfaceVersion, Generation: 1,
		Guest: info.UUID, Host: uuid.New(), DomID: dom, TSCkHz: phys.CPUkHz,
		CPUVendor: "AuthenticAMD", XenVersion: fmt.Sprintf("%d.%d", d.XenMajor, d.XenMinor)}); err != nil {
		return f, err
	}
	if err := w.Shell(stream.Shell{VCPUs: info.NrVCPUs(), EpochPages: 32768,
		MemoryPages: info.MaxPages, MaxGFN: 1<<20 - 1, JSON: blob}); err != nil {
		return f, err
	}
	if _, err := c.Epoch(w, 1, 1, r, true, nil, nil); err != nil {
		return f, err
	}
	return f, buf.Flush()
}

// freeze stops and harvests a guest, with queue after its timers have expired and
// events have come in.
func (h *host) freeze(op *kemariop.Client, queue bool) (r kemariop.SyncResult, err error) {
	for {
		if queue {
			if err := h.ctl.Pause(op.Domain()); err != nil {
				return r, err
			}
			time.Sleep(50 * time.Millisecond)
		}
		h.stopping = time.Now()
		if r, err = op.Sync(true); err == nil {
			h.stopped = time.Now()
			return r, nil
		}
		if queue {
			if uerr := h.ctl.Unpause(op.Domain()); uerr != nil {
				return r, errors.Join(err, uerr)
			}
		}
		// An application processor is being started: it takes microseconds,
		// but the guest has to run for it.
		if !errors.Is(err, syscall.EAGAIN) {
			return r, err
		}
		time.Sleep(time.Millisecond)
	}
}

// passDaemons lets the events for xenstored and xenconsoled pass.
func (h *host) passDaemons(op *kemariop.Client, dom abi.DomID) error {
	for _, index := range []uint32{abi.HVMParamStoreEvtchn, abi.HVMParamConsoleEvtchn} {
		port, err := h.ctl.GetHVMParam(dom, index)
		if err != nil {
			return err
		}
		if err := op.Tap(abi.Port(port), kemariop.TapPass); err != nil {
			return err
		}
	}
	return nil
}

// sync pauses and harvests a running guest again and again, as a primary does
// whose secondary answers at once.
func (h *host) sync(dom abi.DomID, every time.Duration, n int) (err error) {
	op, err := kemariop.New(h.hc, dom)
	if err != nil {
		return err
	}
	c, _, err := primary.NewCapture(op, h.fm, h.ctl, enable)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, op.Disable(), c.Close(), op.Close()) }()
	if err := h.passDaemons(op, dom); err != nil {
		return err
	}
	var longest time.Duration
	for range n {
		time.Sleep(every)
		start := time.Now()
		r, err := op.Sync(true)
		if errors.Is(err, syscall.EAGAIN) {
			fmt.Println("an application processor is being started")
			continue
		}
		if err != nil {
			return err
		}
		if err := op.Release(r.Epoch, kemariop.ReleaseOut|kemariop.ReleaseUnpause); err != nil {
			return err
		}
		longest = max(longest, time.Since(start))
	}
	fmt.Printf("%d syncs, the longest took %v\n", n, longest)
	return nil
}

// look tells what is in the queues and timers of a frozen guest.
func (h *host) look(c *primary.Capture, r kemariop.SyncResult) (found, error) {
	_, frozen, harvested := c.Shared().Times()
	f := found{Dirty: r.DirtyNr, Always: r.AlwaysNr, State: r.StateLen,
		Harvest: time.Duration(harvested - frozen)}
	raw, err := c.Shared().StateCopy(r.StateLen)
	if err != nil {
		return f, err
	}
	state, err := kemariop.DecodeState(raw)
	if err != nil {
		return f, err
	}
	for _, v := range state.VCPUs {
		if v.Flags&kemariop.VCPUSshot != 0 {
			f.Timers++
		}
		if v.Flags&kemariop.VCPUUp != 0 {
			f.Online++
		}
	}
	// EVTCHN_FIFO_LINKED of the event words; see xen/include/public/event_channel.h.
	const linked = 1 << 29
	for _, gfn := range state.FIFO {
		page := c.Memory().Page(gfn)
		for i := 0; i+4 <= len(page); i += 4 {
			if binary.LittleEndian.Uint32(page[i:])&linked != 0 {
				f.Queued++
			}
		}
	}
	return f, nil
}

func (h *host) restore(file string) (took time.Duration, err error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	rd := stream.NewReader(bufio.NewReaderSize(f, 1<<20), stream.Primary,
		stream.Limits{EpochPages: 1 << 20, MemoryPages: 1 << 24, MaxGFN: 1 << 24}, stream.NewPool())
	var (
		dom   abi.DomID
		guest *xlstream.Guest
		sh    *secondary.Shell
		last  *stream.Epoch
	)
	for {
		msg, err := rd.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return 0, err
		}
		switch m := msg.(type) {
		case *stream.Shell:
			if _, guest, err = shell.DecodeDescription(m.JSON); err != nil {
				return 0, err
			}
			if err := (shell.Tools{}).Create(context.Background(), guest); err != nil {
				return 0, err
			}
			dom = guest.DomID
			op, err := kemariop.New(h.hc, dom)
			if err != nil {
				return 0, err
			}
			if sh, err = secondary.OpenShell(op, h.fm, h.ctl); err != nil {
				return 0, err
			}
		case *stream.Batch:
			if err := sh.ApplyBatch(m); err != nil {
				return 0, err
			}
		case *stream.Epoch:
			if err := sh.ApplyEpoch(m); err != nil {
				return 0, err
			}
			last = m
		}
	}
	if last == nil {
		return 0, errors.New("no whole epoch in the file")
	}
	start := time.Now()
	if err := sh.Restore(last.Always, last.State); err != nil {
		return 0, err
	}
	h.resuming = time.Now()
	if err := sh.Resume(); err != nil {
		return 0, err
	}
	if err := h.ctl.Unpause(dom); err != nil {
		return 0, err
	}
	h.resumed = time.Now()
	took = time.Since(start).Round(time.Microsecond)
	if err := sh.Close(); err != nil {
		return 0, err
	}
	return took, (shell.Tools{}).Activate(context.Background(), dom, guest.Config)
}
