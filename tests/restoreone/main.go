// SPDX-License-Identifier: Apache-2.0

// Restoreone proves the principle on one host, in dom0: it synchronises a
// running guest once to a file, destroys the domain, makes a shell with the
// same domid, and lets the guest go on in it.
//
//	restoreone -dom DOMID [-file PATH] [-compare]
//
// It prints a line for each step, and what the sync cost.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
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
	dom := flag.Uint("dom", 0, "domid of the guest")
	file := flag.String("file", "/run/restoreone.stream", "where to keep the state")
	flag.Parse()
	if err := run(abi.DomID(*dom), *file); err != nil {
		fmt.Fprintln(os.Stderr, "restoreone:", err)
		os.Exit(1)
	}
}

type host struct {
	hc  *privcmd.Handle
	ctl *domctl.Client
	fm  *foreignmem.Handle
}

func run(dom abi.DomID, file string) error {
	hc, err := privcmd.Open()
	if err != nil {
		return err
	}
	ctl, err := domctl.New(hc)
	if err != nil {
		return err
	}
	fm, err := foreignmem.Open()
	if err != nil {
		return err
	}
	h := &host{hc, ctl, fm}
	if err := h.save(dom, file); err != nil {
		return fmt.Errorf("saving: %w", err)
	}
	fmt.Println("saved")
	if err := (shell.Tools{}).Destroy(context.Background(), dom); err != nil {
		return err
	}
	fmt.Println("destroyed")
	// libxl counts in seconds how long ago a domid was in use: see
	// LIBXL_DOMID_REUSE_TIMEOUT in libxl_domain.c.
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(2 * time.Second)))
	return h.restore(dom, file)
}

func (h *host) save(dom abi.DomID, file string) (err error) {
	info, err := h.ctl.DomainInfo(dom)
	if err != nil {
		return err
	}
	id := uuid.UUID(info.UUID)
	config, err := (shell.Tools{}).LoadConfig(dom, id.String())
	if err != nil {
		return err
	}
	raw, err := config.Active()
	if err != nil {
		return err
	}
	op, err := kemariop.New(h.hc, dom)
	if err != nil {
		return err
	}
	c, _, err := primary.NewCapture(op, h.fm, h.ctl,
		kemariop.EnableParams{Role: kemariop.RolePrimary, DirtyMax: 32768, DirtyMark: 24576})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close(), op.Close()) }()

	r, err := op.Sync(true)
	for errors.Is(err, syscall.EAGAIN) {
		// An application processor is being started: it takes microseconds.
		time.Sleep(time.Millisecond)
		r, err = op.Sync(true)
	}
	if err != nil {
		return err
	}
	_, frozen, harvested := c.Shared().Times()
	fmt.Printf("frozen; harvest %d ns, %d dirty, %d always, state %d octets\n",
		harvested-frozen, r.DirtyNr, r.AlwaysNr, r.StateLen)

	d, err := primary.Describe(h.ctl, c.Memory(), dom, raw)
	if err != nil {
		return err
	}
	blob, err := d.Encode()
	if err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buf := bufio.NewWriterSize(f, 1<<20)
	w := stream.NewWriter(buf)
	if err := w.Hello(stream.Hello{Role: stream.Primary, ABI: kemariop.InterfaceVersion, Generation: 1,
		Guest: info.UUID, Host: uuid.New(), DomID: dom, TSCkHz: d.TSC.KHz,
		CPUVendor: "AuthenticAMD", XenVersion: fmt.Sprintf("%d.%d", d.XenMajor, d.XenMinor)}); err != nil {
		return err
	}
	if err := w.Shell(stream.Shell{VCPUs: info.NrVCPUs(), EpochPages: 32768,
		MemoryPages: info.MaxPages, MaxGFN: 1<<20 - 1, JSON: blob}); err != nil {
		return err
	}
	sent, err := c.Epoch(w, 1, 1, r, true, nil, nil)
	if err != nil {
		return err
	}
	fmt.Printf("%d pages, %d zero, %d octets\n", sent.Pages, sent.Zeros, sent.Octets)
	return buf.Flush()
}

func (h *host) restore(dom abi.DomID, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	rd := stream.NewReader(bufio.NewReaderSize(f, 1<<20), stream.Primary,
		stream.Limits{EpochPages: 1 << 20, MemoryPages: 1 << 24, MaxGFN: 1 << 24}, stream.NewPool())
	var (
		desc  *shell.Description
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
			return err
		}
		switch m := msg.(type) {
		case *stream.Shell:
			if desc, guest, err = shell.DecodeDescription(m.JSON); err != nil {
				return err
			}
			if err := (shell.Tools{}).Create(context.Background(), guest); err != nil {
				return err
			}
			fmt.Println("shell made")
			op, err := kemariop.New(h.hc, dom)
			if err != nil {
				return err
			}
			if sh, err = secondary.OpenShell(op, h.fm, h.ctl); err != nil {
				return err
			}
		case *stream.Batch:
			if err := sh.ApplyBatch(m); err != nil {
				return err
			}
		case *stream.Epoch:
			if err := sh.ApplyEpoch(m); err != nil {
				return err
			}
			last = m
		}
	}
	if last == nil {
		return errors.New("no whole epoch in the file")
	}
	fmt.Println("memory written")
	start := time.Now()
	if err := sh.Restore(desc, last.Always, last.State); err != nil {
		return err
	}
	if err := sh.Resume(); err != nil {
		return err
	}
	if err := h.ctl.Unpause(dom); err != nil {
		return err
	}
	fmt.Printf("resumed, %v after the last page\n", time.Since(start).Round(time.Microsecond))
	if err := sh.Close(); err != nil {
		return err
	}
	return (shell.Tools{}).Activate(context.Background(), dom, guest.Config)
}
