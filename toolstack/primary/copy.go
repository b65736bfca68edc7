// SPDX-License-Identifier: Apache-2.0

package primary

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/kemari-ft/kemari/toolstack/replica"
	"github.com/kemari-ft/kemari/toolstack/shell"
	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/kemariop"
)

// The first copy of a running guest goes in rounds: all of memory, then what
// changed meanwhile, until a round is small or rounds no longer help.
const (
	maxRounds  = 6
	smallRound = 1024 // pages
	// serveEvery is how many pages are sent between two looks whether the
	// guest waits: it is tapped already, and stops at its first output.
	serveEvery = 64
)

// errConn: the connection broke in the copy; its reader tells the rest.
var errConn = errors.New("the connection broke")

// startCopy describes the guest and copies all of its memory.
func (s *Session) startCopy(generation uint64) error {
	err := s.copyAll(generation)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errConn):
		s.broken()
		return nil
	}
	if lookErr := s.lookAtDomain(); lookErr != nil || s.dead {
		return lookErr
	}
	// Nothing is protected yet: the guest goes on without.
	s.log.Error("the guest cannot be protected", s.who("error", err)...)
	s.status.fail(err)
	s.local = append(s.local, replica.Unprotect{})
	return nil
}

func (s *Session) copyAll(generation uint64) error {
	if err := s.protectable(); err != nil {
		return err
	}
	if s.capture == nil {
		if err := s.enable(); err != nil {
			return err
		}
	}
	s.capture.Forget()
	s.status.progress(0, 0)
	disks, err := s.cfg.Disks.Fix()
	if err != nil {
		return err
	}
	if err := s.checkGrants(); err != nil {
		return err
	}
	info, err := s.cfg.Host.Ctl.DomainInfo(s.cfg.Dom)
	if err != nil {
		return err
	}
	special, err := s.sendShell(info.MaxPages, info.NrVCPUs(), disks)
	if err != nil {
		return err
	}
	if info.Is(abi.DomInfPaused) {
		// Created and not yet started: nothing to race with.
		s.capture.progress = func(n uint64) { s.status.progress(n, info.TotalPages) }
		s.copying = 0
		return s.freezeLast()
	}
	if err := s.conn.Begin(generation, 1, true); err != nil {
		return errConn
	}
	s.copying, s.unsent = generation, nil
	if err := s.copyRunning(info.TotalPages, special); err != nil {
		return err
	}
	return s.freezeLast()
}

// protectable gives every reason why the guest cannot be protected that can be seen
// from here. Xen, asked to enable Kemari, names the first of its own, in its log.
func (s *Session) protectable() error {
	if err := s.followStore(); err != nil {
		return err
	}
	_, config := s.cfg.Host.Tools.LoadConfig(s.cfg.Dom, s.cfg.Guest.String())
	_, nodes := s.store.state(true)
	return errors.Join(config, nodes, s.checkPorts())
}

// checkPorts refuses a guest that talks to other domains than dom0: what it
// says to them cannot be held back, for they may look without being notified.
func (s *Session) checkPorts() error {
	var errs []error
	for port := abi.Port(1); port < kemariop.MaxPorts; port++ {
		st, err := s.cfg.Host.Ctl.EvtchnStatus(s.cfg.Dom, port)
		if errors.Is(err, syscall.EINVAL) {
			break // it has no more
		}
		if errors.Is(err, syscall.EACCES) {
			// With FLASK a port that leads nowhere has no label, and no policy can
			// allow a look at it (neverallow in tools/flask/policy/modules/xen.te).
			// Xen itself looks at all of them at each harvest.
			continue
		}
		if err != nil {
			return err
		}
		peer := st.Status == abi.EvtchnStatInterdomain || st.Status == abi.EvtchnStatUnbound
		if peer && st.RemoteDom != abi.Dom0 {
			errs = append(errs, fmt.Errorf("its event channel %d leads to domain %d; only devices of domain 0 are protected", port, uint16(st.RemoteDom)))
		}
	}
	return errors.Join(errs...)
}

// checkGrants refuses a guest that lets other domains than dom0 at its memory:
// they may read there what has not been acknowledged, and are not there on the
// other host.
func (s *Session) checkGrants() error {
	frames, _, err := s.cfg.Host.Ctl.GrantTableSize(s.cfg.Dom)
	if err != nil {
		return err
	}
	return s.capture.lookAtGrants(int(frames))
}

// sendShell sends what the shell is made from. disks are those that the guest has,
// as Disks.Fix says.
func (s *Session) sendShell(pages uint64, vcpus uint32, disks map[string]string) (special map[abi.GFN]bool, err error) {
	h := s.cfg.Host
	config, err := h.Tools.LoadConfig(s.cfg.Dom, s.cfg.Guest.String())
	if err != nil {
		return nil, err
	}
	// libxl's configuration also has a disk that was refused when it was attached.
	config.KeepDisks(disks)
	raw, err := config.Active()
	if err != nil {
		return nil, err
	}
	d, err := Describe(h.Ctl, s.capture.Memory(), s.cfg.Dom, raw)
	if err != nil {
		return nil, err
	}
	if _, _, err := checkDescription(d); err != nil {
		return nil, err // the secondary would say the same
	}
	blob, err := d.Encode()
	if err != nil {
		return nil, err
	}
	if special, err = xenPages(h.Ctl, s.cfg.Dom); err != nil {
		return nil, err
	}
	top, err := h.Ctl.MaximumGPFN(s.cfg.Dom)
	if err != nil {
		return nil, err
	}
	const slack = 1 << 16 // for what the guest maps later
	shell := stream.Shell{
		VCPUs: vcpus, EpochPages: uint32(h.Config.DirtyPages) + stream.MaxAlways,
		MemoryPages: pages, MaxGFN: max(1<<20-1, top+slack), JSON: blob,
	}
	if s.conn.Shell(shell) != nil {
		return nil, errConn
	}
	return special, nil
}

func checkDescription(d *shell.Description) (*shell.Description, any, error) {
	b, err := d.Encode()
	if err != nil {
		return nil, nil, err
	}
	return shell.DecodeDescription(b)
}

// copyRunning sends all of memory of a guest that runs, and what it changes
// meanwhile. special is where Xen's own pages were when it began.
func (s *Session) copyRunning(total uint64, special map[abi.GFN]bool) error {
	mem := s.capture.Memory()
	store := s.capture.FixedGFNs()
	var n uint64
	for gfn, page := range mem.All() {
		if special[gfn] || store[gfn] {
			continue
		}
		if s.conn.Page(gfn, page) != nil {
			return errConn
		}
		if n++; n%serveEvery == 0 {
			if err := s.serve(); err != nil {
				return err
			}
			s.status.progress(n, total)
		}
	}
	if s.conn.Flush() != nil {
		return errConn
	}
	for range maxRounds {
		if err := s.round(); err != nil {
			return err
		}
		round := s.unsent
		if len(round) <= smallRound {
			return nil
		}
		s.unsent = nil
		s.log.Debug("first copy: another round", s.who("pages", len(round))...)
		if err := s.copyRound(round, special, store); err != nil {
			return err
		}
	}
	return nil
}

func (s *Session) copyRound(round []abi.GFN, special, store map[abi.GFN]bool) error {
	mem := s.capture.Memory()
	for i, gfn := range round {
		if store[gfn] {
			continue
		}
		if special[gfn] {
			// The guest may have moved Xen's page away and have memory
			// here now. The last round knows.
			s.unsent = append(s.unsent, gfn)
			continue
		}
		page := mem.Page(gfn)
		var err error
		if page != nil {
			err = s.conn.Page(gfn, page)
		} else {
			err = s.conn.Hole(gfn)
		}
		if err != nil {
			return errConn
		}
		if i%serveEvery == 0 {
			if err := s.serve(); err != nil {
				return err
			}
		}
	}
	if s.conn.Flush() != nil {
		return errConn
	}
	return nil
}

// serve lets the guest go on if it waits: nothing is held back yet. Its list
// of dirtied pages is closed only if it is full.
func (s *Session) serve() error {
	select {
	case <-s.trigger:
	default:
		return nil
	}
	if cause, _ := s.capture.Shared().Trigger(); cause == kemariop.TriggerMark {
		return s.round()
	}
	s.freeze()
	if _, err := s.op.Sync(false); err != nil {
		s.thaw()
		if errors.Is(err, syscall.EAGAIN) {
			s.Sync() // it runs; the next look tries again
			return nil
		}
		return err
	}
	return s.release()
}

// round notes what the guest has changed so far, and lets it go on.
func (s *Session) round() error {
	if err := s.freezeHarvest(); err != nil {
		return err
	}
	if err := s.capture.changes(s.xen); err != nil {
		return err
	}
	s.unsent = append(s.unsent, s.capture.pages...)
	if err := s.step(replica.CopyRound{}); err != nil {
		return err
	}
	// Each page once, however long the copy takes and the guest is at it.
	slices.Sort(s.unsent)
	s.unsent = slices.Compact(s.unsent)
	return nil
}

// freezeHarvest freezes the guest and closes its dirty list, whatever goes on
// in it.
func (s *Session) freezeHarvest() error {
	s.freeze()
	r, err := s.op.Sync(true)
	for errors.Is(err, syscall.EAGAIN) {
		time.Sleep(again)
		r, err = s.op.Sync(true)
	}
	if err != nil {
		s.thaw()
		return err
	}
	s.xen, s.frozen = r, true
	return nil
}

// quietTime bounds how long the first copy waits for the end of a conversation
// between the guest and xenstored.
const quietTime = 10 * time.Second

// freezeLast freezes the guest for the end of the first copy.
func (s *Session) freezeLast() error {
	for start := time.Now(); ; time.Sleep(again) {
		s.measure.begin(reasonTimer)
		if err := s.freezeHarvest(); err != nil {
			return err
		}
		s.measure.frozen()
		busy, err := s.store.look(s.capture.Fixed(stream.AlwaysStore))
		if err != nil {
			return errors.Join(err, s.release())
		}
		if busy == "" {
			break
		}
		if err := s.capture.changes(s.xen); err != nil {
			return err
		}
		s.unsent = append(s.unsent, s.capture.pages...)
		if err := s.release(); err != nil {
			return err
		}
		if time.Since(start) > quietTime {
			return errors.New("the guest's conversation with xenstored does not come to an end: " + string(busy))
		}
	}
	nodes, err := s.store.state(true)
	if err != nil {
		return errors.Join(err, s.release())
	}
	s.nodes = nodes
	s.cfg.Disks.Gate()
	if err := s.captureRings(); err != nil {
		return err
	}
	s.measure.mark(&s.measure.now.Harvest)
	s.local = append(s.local, replica.Harvested{})
	return nil
}
