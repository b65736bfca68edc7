// SPDX-License-Identifier: Apache-2.0

// Package primary synchronises a running guest to its secondary.
package primary

import (
	"errors"
	"fmt"
	"slices"

	"github.com/kemari-ft/kemari/toolstack/guestmem"
	"github.com/kemari-ft/kemari/toolstack/hotset"
	"github.com/kemari-ft/kemari/toolstack/shell/xlstream"
	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/domctl"
	"github.com/kemari-ft/kemari/xen/foreignmem"
	"github.com/kemari-ft/kemari/xen/kemariop"
)

// ErrLost: Xen could not note every page that the guest dirtied. Protection
// has to begin anew, with a full copy.
var ErrLost = errors.New("the list of dirtied pages is incomplete")

// Capture reads what a guest is, while it is frozen. Its methods must not be
// called concurrently.
type Capture struct {
	dom    abi.DomID
	op     *kemariop.Client
	fm     *foreignmem.Handle
	shared *kemariop.Shared
	mem    *guestmem.Memory

	grants     *foreignmem.Mapping // nil until the guest has some
	fixed      []stream.AlwaysPage // store and console: Kind, Index, GFN
	rings      []stream.AlwaysPage // those of the disks, likewise
	store      []byte              // image of the store page
	left       []abi.GFN           // no always-sent pages any more, since the last commit
	progress   func(pages uint64)  // told of a full epoch, if not nil
	known      known               // pages other than those that are always sent
	hot        *hotset.Set         // pages that Xen does not write protect
	listed     []listedPage        // reused: those of the last epoch, for hot
	warm       []abi.GFN           // as named to Xen last, ascending
	warmIn     int                 // epochs until warm pages are named again; neverWarm
	same       uint32              // pages of the last epoch that were not sent: the secondary has them
	sent       map[abi.GFN][]byte  // always-sent pages as the secondary knows them
	sentAs     map[abi.GFN]role    // what they were then
	always     []stream.AlwaysPage // reused
	lines      []byte              // reused: backs always[].Data where that is lines
	foreign    foreignGrants       // what readAlways found
	frame      []byte              // reused: copy of a grant frame that is not sent as one
	alwaysGFNs map[abi.GFN]bool    // reused
	pages      []abi.GFN           // reused
	moved      []abi.GFN           // reused: pages to be mapped again
}

// listedPage is one of the dirty list.
type listedPage struct {
	gfn     abi.GFN
	changed bool // as far as is known
}

// role is as what a page is always sent.
type role struct {
	kind  stream.AlwaysKind
	index uint32
}

// NewCapture enables Kemari for a domain in the primary's role and maps all
// that it needs. From then on the domain stops at its first output.
func NewCapture(op *kemariop.Client, fm *foreignmem.Handle, ctl *domctl.Client, params kemariop.EnableParams) (*Capture, kemariop.Status, error) {
	status, err := op.Enable(params)
	if err != nil {
		return nil, status, err
	}
	// Mapped after log-dirty mode is on, so that no change of the p2m is
	// missed.
	c, err := AdoptCapture(op, fm, ctl, status)
	if err != nil {
		return nil, status, errors.Join(err, op.Disable())
	}
	return c, status, nil
}

// AdoptCapture maps all that is needed of a domain for which an earlier daemon
// has enabled Kemari.
func AdoptCapture(op *kemariop.Client, fm *foreignmem.Handle, ctl *domctl.Client, status kemariop.Status) (*Capture, error) {
	dom := op.Domain()
	c := &Capture{
		dom: dom, op: op, fm: fm,
		sent: map[abi.GFN][]byte{}, sentAs: map[abi.GFN]role{}, alwaysGFNs: map[abi.GFN]bool{},
		// The rest of the list is for what is not hot. Of what was hot to a daemon
		// before this one nothing is known: it is listed on and on, and so comes to
		// be hot here, too, if it is worth it.
		hot: hotset.New(min(kemariop.HotMax, int(status.DirtyMark)/2)),
	}
	for index, kind := range map[uint32]stream.AlwaysKind{
		xlstream.ParamStorePFN: stream.AlwaysStore, xlstream.ParamConsolePFN: stream.AlwaysConsole,
	} {
		gfn, err := ctl.GetHVMParam(dom, index)
		if err != nil {
			return nil, err
		}
		if gfn != 0 {
			c.fixed = append(c.fixed, stream.AlwaysPage{Kind: kind, GFN: abi.GFN(gfn)})
		}
	}
	var err error
	if c.shared, err = op.MapShared(fm, status.NrFrames); err == nil {
		c.mem, err = guestmem.Map(fm, ctl, dom, false)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Fixed returns the page of one of the kinds that a guest has once, and does
// not choose: the store's and the console's. It is nil if there is none.
func (c *Capture) Fixed(kind stream.AlwaysKind) []byte {
	for _, p := range c.fixed {
		if p.Kind == kind {
			return c.mem.Page(p.GFN)
		}
	}
	return nil
}

// SetStore gives the image of the store page that goes into the epochs: one
// which was found quiet. xenstored writes to the page itself at any time.
func (c *Capture) SetStore(image []byte) { c.store = image }

// Forget makes the next epoch carry all its pages with their contents: the one
// before did not reach the secondary, or who sent it is not known.
func (c *Capture) Forget() {
	c.known.forgetAll()
	clear(c.sentAs)
}

// Committed says that the secondary holds the last epoch.
func (c *Capture) Committed() { c.left = c.left[:0] }

// Which pages are warm changes a little with each epoch, and it does no harm to be
// late: they are named once in warmEvery epochs.
const warmEvery, neverWarm = 8, -1

// NamePages tells Xen which pages it need not write protect any more, and for which
// it may spare the guest faults of their own. It is for after the pause. What fails
// once is given up.
func (c *Capture) NamePages() error { return errors.Join(c.nameHot(), c.nameWarm()) }

func (c *Capture) nameHot() error {
	for _, p := range c.listed {
		_, warm := slices.BinarySearch(c.warm, p.gfn)
		c.hot.Note(p.gfn, p.changed, warm)
	}
	c.listed = c.listed[:0]
	gfns, moved := c.hot.Turn()
	if !moved {
		return nil
	}
	err := c.op.Hot(gfns)
	if err != nil {
		c.hot = hotset.New(0)
	}
	return err
}

// nameWarm begins with the first epoch: others may have been named by a daemon before
// this one, of which nothing is remembered here.
func (c *Capture) nameWarm() error {
	if c.warmIn > 0 {
		c.warmIn--
	}
	if c.warmIn != 0 {
		return nil
	}
	c.warm = c.known.appendWarm(c.warm[:0])
	if err := c.op.Warm(c.warm); err != nil {
		c.warmIn = neverWarm
		return err
	}
	c.warmIn = warmEvery
	return nil
}

// Memory is the guest's memory.
func (c *Capture) Memory() *guestmem.Memory { return c.mem }

// Shared is the buffer that Xen fills.
func (c *Capture) Shared() *kemariop.Shared { return c.shared }

// Close unmaps everything. It does not change the domain.
func (c *Capture) Close() error {
	var errs []error
	if c.grants != nil {
		errs = append(errs, c.grants.Close())
	}
	if c.mem != nil {
		errs = append(errs, c.mem.Close())
	}
	if c.shared != nil {
		errs = append(errs, c.shared.Close())
	}
	return errors.Join(errs...)
}

// Epoch writes what one harvest found: with full all of memory, otherwise what
// changed. The guest is frozen from the harvest until Epoch has returned. After
// ErrForeignGrants nothing has been written, and protection has to end.
func (c *Capture) Epoch(w *stream.Writer, generation, number uint64, r kemariop.SyncResult, full bool, rings []stream.Ring, nodes []byte) (stream.Sent, error) {
	var none stream.Sent
	if r.Flags&kemariop.SyncLost != 0 && !full {
		return none, fmt.Errorf("%s: epoch %d: %w", c.dom, number, ErrLost)
	}
	if err := c.changes(r); err != nil {
		return none, err
	}
	if err := c.readAlways(r, full); err != nil {
		return none, err
	}
	if err := c.foreign.err(); err != nil {
		return none, fmt.Errorf("%s: epoch %d: %w", c.dom, number, err)
	}
	if err := w.Begin(generation, number, full); err != nil {
		return none, err
	}
	if full {
		n := uint64(0)
		for gfn, page := range c.mem.All() {
			if c.alwaysGFNs[gfn] {
				continue
			}
			if err := w.Page(gfn, page); err != nil {
				return none, err
			}
			if n++; n%serveEvery == 0 && c.progress != nil {
				c.progress(n)
			}
		}
	} else if err := c.writePages(w); err != nil {
		return none, err
	}
	return c.finish(w, r, full, rings, nodes)
}

// LastRound ends a full epoch whose memory has been sent while the guest ran.
// unsent are the pages that changed since they were sent, beside those which
// the harvest found.
func (c *Capture) LastRound(w *stream.Writer, r kemariop.SyncResult, unsent []abi.GFN, rings []stream.Ring, nodes []byte) (stream.Sent, error) {
	var none stream.Sent
	if r.Flags&kemariop.SyncLost != 0 {
		return none, fmt.Errorf("%s: first copy: %w", c.dom, ErrLost)
	}
	if err := c.changes(r); err != nil {
		return none, err
	}
	if err := c.readAlways(r, true); err != nil {
		return none, err
	}
	if err := c.foreign.err(); err != nil {
		return none, fmt.Errorf("%s: first copy: %w", c.dom, err)
	}
	c.pages = append(c.pages, unsent...)
	if err := c.writePages(w); err != nil {
		return none, err
	}
	return c.finish(w, r, true, rings, nodes)
}

func (c *Capture) finish(w *stream.Writer, r kemariop.SyncResult, full bool, rings []stream.Ring, nodes []byte) (stream.Sent, error) {
	var none stream.Sent
	if err := w.Always(c.always); err != nil {
		return none, err
	}
	state, err := c.shared.State(r.StateLen)
	if err != nil {
		return none, err
	}
	if err := w.State(state); err != nil {
		return none, err
	}
	if err := w.Rings(rings); err != nil {
		return none, err
	}
	if full || nodes != nil {
		if err := w.Xenstore(nodes); err != nil {
			return none, err
		}
	}
	return w.End()
}

// changes reads the dirty list into c.pages, and maps again what is another
// page now.
func (c *Capture) changes(r kemariop.SyncResult) error {
	dirty, err := c.shared.Dirty(r.DirtyHalf, r.DirtyNr)
	if err != nil {
		return err
	}
	c.pages, c.moved = c.pages[:0], c.moved[:0]
	for _, entry := range dirty {
		gfn, p2m := kemariop.DirtyGFN(entry)
		if p2m {
			c.moved = append(c.moved, gfn)
		}
		c.pages = append(c.pages, gfn)
	}
	return c.mem.Changed(c.moved...)
}

// writePages sends c.pages as they are now.
func (c *Capture) writePages(w *stream.Writer) error {
	slices.Sort(c.pages)
	c.pages = slices.Compact(c.pages)
	c.same, c.listed = 0, c.listed[:0]
	for _, gfn := range c.pages {
		changed := true // what is sent always costs nothing more
		if !c.alwaysGFNs[gfn] {
			var err error
			if changed, err = c.writePage(w, gfn, c.mem.Page(gfn)); err != nil {
				return err
			}
		}
		c.listed = append(c.listed, listedPage{gfn, changed})
	}
	return nil
}

// writePage sends what the secondary does not have of a page, and reports whether
// that is known to be something.
func (c *Capture) writePage(w *stream.Writer, gfn abi.GFN, page []byte) (changed bool, err error) {
	if page == nil {
		c.known.forget(gfn)
		return false, w.Hole(gfn)
	}
	switch set, diff, compared := c.known.tell(gfn, page); {
	case set == 0:
		c.same++
		return false, nil
	case set.Len() <= stream.MaxLines:
		return true, w.Lines(gfn, set, diff)
	default:
		return compared, w.Page(gfn, page)
	}
}

// readAlways copies the pages that Xen and dom0 write without logging, those
// that changed with their contents. What it copies of the grant table it judges.
func (c *Capture) readAlways(r kemariop.SyncResult, full bool) error {
	entries, err := c.shared.Always(r.AlwaysNr)
	if err != nil {
		return err
	}
	c.always, c.lines = c.always[:0], c.lines[:0]
	c.foreign.reset()
	clear(c.alwaysGFNs)
	for _, list := range c.dom0Writes() {
		for _, p := range list {
			page := c.mem.Page(p.GFN)
			if p.Kind == stream.AlwaysStore && c.store != nil {
				page = c.store
			}
			if _, err := c.addAlways(p.Kind, p.Index, p.GFN, page, full); err != nil {
				return err
			}
		}
	}
	for _, entry := range entries {
		kind, index, gfn := kemariop.AlwaysEntry(entry)
		switch {
		case stream.AlwaysKind(kind) == stream.AlwaysGrant:
			err = c.addGrants(index, gfn, full)
		case gfn <= stream.MaxGFN:
			_, err = c.addAlways(stream.AlwaysKind(kind), uint32(index), gfn, c.mem.Page(gfn), full)
		}
		if err != nil {
			return err
		}
	}
	slices.SortFunc(c.always, func(a, b stream.AlwaysPage) int { return int(int64(a.GFN) - int64(b.GFN)) })
	// What is no such page any more never was among the others.
	for gfn := range c.sent {
		if !c.alwaysGFNs[gfn] {
			delete(c.sent, gfn)
			delete(c.sentAs, gfn)
			c.left = append(c.left, gfn)
		}
	}
	c.pages = append(c.pages, c.left...)
	return nil
}

// addAlways copies one of these pages, and returns which lines of the copy are
// others than the last time, or may be.
func (c *Capture) addAlways(kind stream.AlwaysKind, index uint32, gfn abi.GFN, page []byte, full bool) (set stream.LineSet, err error) {
	if c.alwaysGFNs[gfn] {
		return 0, nil // several vCPUs' areas in one page
	}
	if page == nil {
		return 0, fmt.Errorf("%s: gfn %#x is in use by Xen, but there is no page", c.dom, gfn)
	}
	c.alwaysGFNs[gfn] = true
	c.known.forget(gfn)
	p := stream.AlwaysPage{Kind: kind, Index: index, GFN: gfn}
	known := c.sent[gfn]
	if known == nil {
		known = make([]byte, abi.PageSize)
		c.sent[gfn] = known
	}
	if was, sent := c.sentAs[gfn]; full || !sent || was != (role{kind, index}) {
		c.sentAs[gfn] = role{kind, index}
		copy(known, page)
		p.Data, set = known, everyLine
	} else {
		at := len(c.lines)
		if set, c.lines = stream.Diff(c.lines, known, page); set.Len() > stream.MaxLines {
			p.Data, c.lines = known, c.lines[:at]
		} else if set != 0 {
			p.Lines, p.Data = set, c.lines[at:]
		}
	}
	c.always = append(c.always, p)
	return set, nil
}
