// SPDX-License-Identifier: Apache-2.0

package xlstream

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/kemari-ft/kemari/xen/abi"
)

// Range is a run of guest frame numbers.
type Range struct {
	First abi.GFN
	Count uint64
}

// TSCInfo is what XEN_DOMCTL_gettscinfo returns for the guest.
type TSCInfo struct {
	Mode, KHz   uint32
	NSec        uint64
	Incarnation uint32
}

// HVMParam is one of the guest's HVM parameters.
type HVMParam struct {
	Index uint32
	Value uint64
}

// Guest is all that a shell is made from.
type Guest struct {
	Config *Config
	// DomID is the domid which the shell gets: the primary's, since ring
	// addresses, grants and xenstore paths in the guest's memory hold it.
	DomID abi.DomID
	// XenMajor, XenMinor are for the restorer's log only.
	XenMajor, XenMinor uint32
	// RAM lists the frames to populate, in order and without overlap.  The
	// pages named by HVM parameters have to be among them.
	RAM []Range
	TSC TSCInfo
	// Params has the parameters listed in Params that are not zero.
	Params []HVMParam
	// HVMContext is the blob of XEN_DOMCTL_gethvmcontext.
	HVMContext []byte
}

// Implementation limits.  They bound what a hostile peer can make the restorer
// allocate: its bitmap of populated frames grows up to the highest frame.
const (
	maxGFN        = 1 << 32
	maxHVMContext = 8 << 20

	// maxMemSlackKB is LIBXL_MAXMEM_CONSTANT: what libxl adds to the
	// memory of a domain that is not PV when it calls setmaxmem.
	maxMemSlackKB = 1024
)

// Write writes the save file for g.
func Write(w io.Writer, g *Guest) error {
	if err := g.Check(); err != nil {
		return err
	}
	json, err := g.Config.Shell(g.DomID)
	if err != nil {
		return err
	}
	e := &encoder{w: w}
	e.xlHeader(json)
	e.libxlHeader()
	// The record is empty: the libxc stream follows it (libxl_stream_read.c:
	// process_record() hands the file descriptor to the save helper).
	e.record(libxlRecLibxcContext, nil)

	e.libxcHeaders(g.XenMajor, g.XenMinor)
	// No policy records: libxl makes a policy from the JSON and the host.
	e.record(recStaticDataEnd, nil)
	// Pages go before the parameters, because handle_hvm_params() clears the
	// pages that the parameters name.
	e.pages(g.RAM)
	e.tscInfo(g.TSC)
	e.record(recHVMContext, g.HVMContext)
	e.hvmParams(g.Params)
	e.record(recEnd, nil)

	// No emulator records: libxl refuses them for any type but HVM.
	e.record(libxlRecEnd, nil)
	if e.err != nil {
		return fmt.Errorf("write save file of domain %d: %w", uint16(g.DomID), e.err)
	}
	return nil
}

// Check says, with every reason, why no shell can be made from g.
func (g *Guest) Check() error {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf(format, args...))
	}
	if g.Config == nil {
		return errors.New("shell: no domain configuration")
	}
	if g.DomID == 0 || g.DomID >= abi.DomIDFirstReserved {
		bad("domid %d is not a guest's (1..%d)", uint16(g.DomID), abi.DomIDFirstReserved-1)
	}
	if g.XenMajor == 0 {
		bad("Xen version %d.%d: major 0 marks a converted legacy stream", g.XenMajor, g.XenMinor)
	}
	errs = append(errs, g.checkRAM()...)
	errs = append(errs, g.checkParams()...)
	// Xen has no frequency to tell of a TSC that it lets through: tsc_get_info(),
	// arch/x86/time.c.
	if native := g.TSC.Mode == abi.TSCModeNeverEmulate; native != (g.TSC.KHz == 0) {
		bad("TSC mode %d with a frequency of %d kHz", g.TSC.Mode, g.TSC.KHz)
	}
	if n := len(g.HVMContext); n == 0 || n > maxHVMContext {
		bad("HVM context of %d bytes (1..%d)", n, maxHVMContext)
	}
	if len(errs) != 0 {
		return fmt.Errorf("make shell of %q: %w", g.Config.Name(), errors.Join(errs...))
	}
	return nil
}

func (g *Guest) checkRAM() (errs []error) {
	var next abi.GFN
	var total uint64
	for i, r := range g.RAM {
		switch {
		case r.Count == 0 || r.First >= maxGFN || r.Count > uint64(maxGFN-r.First):
			return append(errs, fmt.Errorf("RAM range %d: gfn %#x count %#x: empty or above gfn %#x", i, r.First, r.Count, uint64(maxGFN)))
		case r.First < next:
			return append(errs, fmt.Errorf("RAM range %d: gfn %#x: out of order or listed twice (expected at least %#x)", i, r.First, next))
		}
		next = r.First + abi.GFN(r.Count)
		total += r.Count
	}
	if total == 0 {
		errs = append(errs, errors.New("no RAM listed"))
	}
	if limit := (g.Config.TargetMemKB() + maxMemSlackKB) >> (pageShift - 10); total > limit {
		errs = append(errs, fmt.Errorf("%d pages of RAM, but the configured %d kB allow only %d", total, g.Config.TargetMemKB(), limit))
	}
	return errs
}

func (g *Guest) checkParams() (errs []error) {
	seen := map[uint32]bool{}
	for _, p := range g.Params {
		if !slices.Contains(Params, p.Index) {
			errs = append(errs, fmt.Errorf("HVM parameter %d = %#x cannot be carried in the stream", p.Index, p.Value))
		}
		if seen[p.Index] {
			errs = append(errs, fmt.Errorf("HVM parameter %d listed twice", p.Index))
		}
		seen[p.Index] = true
		switch p.Index {
		case ParamStorePFN, ParamConsolePFN, ParamIOReqPFN, ParamBufIOReqPFN:
			if !g.hasPage(abi.GFN(p.Value)) {
				errs = append(errs, fmt.Errorf("HVM parameter %d names gfn %#x, which is not in the list of RAM", p.Index, p.Value))
			}
		}
	}
	for _, need := range []uint32{ParamStorePFN, ParamConsolePFN} {
		if !seen[need] {
			errs = append(errs, fmt.Errorf("HVM parameter %d is missing: libxl would introduce the domain with page 0", need))
		}
	}
	return errs
}

func (g *Guest) hasPage(gfn abi.GFN) bool {
	return slices.ContainsFunc(g.RAM, func(r Range) bool {
		return gfn >= r.First && uint64(gfn-r.First) < r.Count
	})
}
