// SPDX-License-Identifier: Apache-2.0

// Package secondary keeps a guest's shell and turns it into the guest.
package secondary

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/kemari-ft/kemari/toolstack/guestmem"
	"github.com/kemari-ft/kemari/toolstack/shell"
	"github.com/kemari-ft/kemari/toolstack/shell/xlstream"
	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/toolstack/xsreplica"
	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/domctl"
	"github.com/kemari-ft/kemari/xen/foreignmem"
	"github.com/kemari-ft/kemari/xen/hvmctx"
	"github.com/kemari-ft/kemari/xen/kemariop"
)

// Shell is the live shell of a guest: a paused domain whose events are parked.
// Its methods must not be called concurrently.
type Shell struct {
	dom abi.DomID
	op  *kemariop.Client
	fm  *foreignmem.Handle
	ctl *domctl.Client
	mem *guestmem.Memory

	// The store's and the console's page, which belong to the shell's
	// xenstored and xenconsoled until activation.
	store, console abi.GFN
}

// OpenShell takes a freshly made shell: parks its events, pauses it once more,
// so that xl unpause does not run it, and maps its memory.
func OpenShell(op *kemariop.Client, fm *foreignmem.Handle, ctl *domctl.Client) (*Shell, error) {
	if _, err := op.Enable(kemariop.EnableParams{Role: kemariop.RoleSecondary}); err != nil {
		return nil, err
	}
	mem, err := guestmem.Map(fm, ctl, op.Domain(), true)
	if err != nil {
		return nil, err
	}
	return &Shell{dom: op.Domain(), op: op, fm: fm, ctl: ctl, mem: mem}, nil
}

// Keep protects the store's and the console's page of a guest from epochs.
func (s *Shell) Keep(d *shell.Description) {
	s.store = abi.GFN(d.Param(xlstream.ParamStorePFN))
	s.console = abi.GFN(d.Param(xlstream.ParamConsolePFN))
}

func (s *Shell) kept(gfn abi.GFN) bool {
	return gfn != 0 && (gfn == s.store || gfn == s.console)
}

// Memory is the shell's memory.
func (s *Shell) Memory() *guestmem.Memory { return s.mem }

// Close unmaps the shell's memory.
func (s *Shell) Close() error { return s.mem.Close() }

// Write puts a page into the shell, making room for it if there is none.
func (s *Shell) Write(gfn abi.GFN, data []byte) error {
	if s.kept(gfn) {
		return nil
	}
	page, err := s.room(gfn)
	if err != nil {
		return err
	}
	copy(page, data)
	return nil
}

// room is the page at a gfn, a new one if there was none.
func (s *Shell) room(gfn abi.GFN) ([]byte, error) {
	if page := s.mem.Page(gfn); page != nil {
		return page, nil
	}
	if err := s.ctl.PopulatePhysmap(s.dom, []abi.GFN{gfn}); err != nil {
		return nil, err
	}
	if err := s.mem.Changed(gfn); err != nil {
		return nil, err
	}
	page := s.mem.Page(gfn)
	if page == nil {
		return nil, fmt.Errorf("%s: no page at gfn %#x although it was populated", s.dom, gfn)
	}
	return page, nil
}

// Zero makes a page of zeros.
func (s *Shell) Zero(gfn abi.GFN) error { return s.Write(gfn, zeros[:]) }

var zeros [abi.PageSize]byte

// Hole takes a page away.
func (s *Shell) Hole(gfn abi.GFN) error {
	if s.mem.Page(gfn) == nil || s.kept(gfn) {
		return nil
	}
	if err := s.ctl.DecreaseReservation(s.dom, []abi.GFN{gfn}); err != nil {
		return err
	}
	return s.mem.Changed(gfn)
}

// ApplyBatch applies a part of a full epoch.
func (s *Shell) ApplyBatch(b *stream.Batch) error {
	for i, gfn := range b.GFNs {
		if err := s.Write(gfn, b.Data[i*abi.PageSize:(i+1)*abi.PageSize]); err != nil {
			return err
		}
	}
	return s.applyLists(b.Zeros, b.Holes)
}

// ApplyEpoch applies the memory of an epoch that has arrived whole. The
// always-sent pages are not part of it: the shell's xenstored and xenconsoled
// would act on them, and Xen refuses to create ports that look busy.
func (s *Shell) ApplyEpoch(e *stream.Epoch) error {
	for i := range e.Pages() {
		gfn, data := e.Page(i)
		if err := s.Write(gfn, data); err != nil {
			return err
		}
	}
	for i := range e.Patches() {
		if err := s.patch(e.Lines(i)); err != nil {
			return err
		}
	}
	return s.applyLists(e.Zeros, e.Holes)
}

// patch writes some lines of a page.
func (s *Shell) patch(gfn abi.GFN, set stream.LineSet, data []byte) error {
	if s.kept(gfn) {
		return nil
	}
	page := s.mem.Page(gfn)
	if page == nil {
		return fmt.Errorf("%s: lines of gfn %#x have changed, at which the epoch before has no page", s.dom, gfn)
	}
	set.Patch(page, data)
	return nil
}

func (s *Shell) applyLists(zeros, holes []abi.GFN) error {
	for _, gfn := range zeros {
		if err := s.Zero(gfn); err != nil {
			return err
		}
	}
	for _, gfn := range holes {
		if err := s.Hole(gfn); err != nil {
			return err
		}
	}
	return nil
}

// Restore sets the state of the last epoch: everything but letting the guest
// run. After an error the shell is of no use any more.
func (s *Shell) Restore(always []stream.AlwaysPage, records []byte) error {
	if err := s.Prepare(always, records); err != nil {
		return err
	}
	page, image := s.StorePage(always)
	if page == nil {
		return nil
	}
	return xsreplica.Put(page, image)
}

// Prepare is Restore but for the store page, over which xenstored is spoken to
// first.
func (s *Shell) Prepare(always []stream.AlwaysPage, records []byte) error {
	state, err := kemariop.DecodeState(records)
	if err != nil {
		return err
	}
	context, err := s.localTSC(state.HVM)
	if err != nil {
		return err
	}
	if err := s.placeXenPages(always); err != nil {
		return err
	}
	if err := s.clearFIFO(always); err != nil {
		return err
	}
	if err := s.ctl.SetHVMContext(s.dom, context); err != nil {
		return err
	}
	state.HVM = nil
	if err := s.op.SetState(state.Encode()); err != nil {
		return err
	}
	return s.writeAlways(always)
}

// StorePage returns the shell's store page and the guest's image of it, nil if
// the guest has none.
func (s *Shell) StorePage(always []stream.AlwaysPage) (page, image []byte) {
	for _, p := range always {
		if p.Kind == stream.AlwaysStore {
			return s.mem.Page(p.GFN), p.Data
		}
	}
	return nil, nil
}

// clearFIFO empties the pages of event words: what the guest had there before
// it gave them to Xen may look like queued events, and Xen creates no port
// that is queued (evtchn_is_busy()).
func (s *Shell) clearFIFO(always []stream.AlwaysPage) error {
	for _, p := range always {
		if p.Kind == stream.AlwaysFIFO {
			if err := s.Zero(p.GFN); err != nil {
				return err
			}
		}
	}
	return nil
}

// Resume lets the guest run, unless the toolstack's own pause still holds it.
func (s *Shell) Resume() error { return s.op.Resume() }

// fitTSC says why a guest cannot go on with this host's TSC. If the rates are near
// enough it gives the shell this host's, since no two hosts measure the same one,
// and Xen would emulate the other for the rest of the guest's life
// (tsc_set_info(), arch/x86/time.c).
func fitTSC(g *xlstream.Guest, hostkHz uint32) error {
	ctx, err := hvmctx.Parse(g.HVMContext)
	if err != nil {
		return err
	}
	khz := ctx.Header().GTSCkHz
	same := sameRate(int64(khz), int64(hostkHz))
	switch {
	case g.TSC.Mode == abi.TSCModeNeverEmulate && !same:
		return fmt.Errorf("tsc_mode=native: the guest's TSC runs at %d kHz and this host's at %d, its clocks would go wrong here: give it tsc_mode=\"default\"", khz, hostkHz)
	case g.TSC.Mode == abi.TSCModeDefault && same:
		g.TSC.KHz = hostkHz
	}
	return nil
}

// localTSC replaces the TSC rate of a HVM context by this host's, if it is
// near enough: Xen takes it for the rate of the shell's TSC (arch_hvm_load()),
// which fitTSC has made this host's.
func (s *Shell) localTSC(blob []byte) ([]byte, error) {
	ctx, err := hvmctx.Parse(blob)
	if err != nil {
		return nil, err
	}
	phys, err := s.ctl.Physinfo()
	if err != nil {
		return nil, err
	}
	if sameRate(int64(ctx.Header().GTSCkHz), int64(phys.CPUkHz)) {
		ctx.SetGTSCkHz(phys.CPUkHz)
	}
	return ctx.Bytes(), nil
}

// placeXenPages puts Xen's own pages where the guest has mapped them.
func (s *Shell) placeXenPages(always []stream.AlwaysPage) error {
	for _, p := range always {
		var err error
		switch p.Kind {
		case stream.AlwaysSharedInfo:
			err = s.ctl.AddToPhysmap(s.dom, abi.MapSpaceSharedInfo, 0, p.GFN)
		case stream.AlwaysGrant:
			err = s.ctl.AddToPhysmap(s.dom, abi.MapSpaceGrantTable, uint64(p.Index), p.GFN)
		default:
			continue
		}
		if err == nil {
			err = s.mem.Changed(p.GFN)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// reservedGrants are the first entries of a grant table, which the toolstack
// that builds a domain owns: see GNTTAB_NR_RESERVED_ENTRIES in
// xen/include/public/grant_table.h.
const reservedGrants = 8

// Bits of grant_entry_v1's flags; see xen/include/public/grant_table.h.
const (
	gtfReading = 1 << 3
	gtfWriting = 1 << 4
)

func (s *Shell) writeAlways(always []stream.AlwaysPage) error {
	for _, p := range always {
		// Where there was a hole until the last epoch, its page came with no other.
		page, err := s.room(p.GFN)
		if err != nil {
			return fmt.Errorf("a page that Xen or dom0 writes: %w", err)
		}
		if len(p.Data) != abi.PageSize {
			return fmt.Errorf("%s: gfn %#x: %w", s.dom, p.GFN, errNoImage)
		}
		switch p.Kind {
		case stream.AlwaysGrant:
			writeGrants(page, p.Data, p.Index == 0)
		case stream.AlwaysStore:
			// Last, see Prepare.
		default:
			copy(page, p.Data)
		}
	}
	return nil
}

var errNoImage = errors.New("the stage has no image of an always-sent page")

// writeGrants writes a frame of version 1 grant entries. What the dead host's
// back ends had mapped is not mapped here: a stale GTF_reading or GTF_writing
// would never be cleared, and the front end would not get its page back.
func writeGrants(page, image []byte, first bool) {
	const size = 8 // struct grant_entry_v1
	start := 0
	if first {
		start = reservedGrants * size
	}
	copy(page[start:], image[start:])
	for at := start; at < len(page); at += size {
		flags := binary.LittleEndian.Uint16(page[at:])
		binary.LittleEndian.PutUint16(page[at:], flags&^(gtfReading|gtfWriting))
	}
}
