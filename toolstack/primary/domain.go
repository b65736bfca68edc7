// SPDX-License-Identifier: Apache-2.0

package primary

import (
	"errors"
	"fmt"

	"github.com/kemari-ft/kemari/toolstack/host"
	"github.com/kemari-ft/kemari/toolstack/lease"
	"github.com/kemari-ft/kemari/toolstack/replica"
	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/evtchn"
	"github.com/kemari-ft/kemari/xen/kemariop"
)

// lookAtDomain finds out whether the guest has ended.
func (s *Session) lookAtDomain() error {
	info, err := s.cfg.Host.Ctl.DomainInfo(s.cfg.Dom)
	if err != nil && !errors.Is(err, errNoDomain) {
		return err // to say that it is gone would be a guess
	}
	gone := err != nil || info.UUID != [16]byte(s.cfg.Guest) || info.Is(abi.DomInfDying)
	if gone && !s.dead {
		s.log.Info("the domain is gone", s.who()...)
	}
	if gone {
		s.dead = true
		// As long as a page is mapped, the domain keeps its memory.
		s.thaw()
		s.frozen = false
		s.closeCapture()
		if rec := s.machine.Record(); rec.Phase == lease.HandedOver {
			return nil
		}
		return s.endGuest(stream.ReasonDestroyed)
	}
	why, down := info.ShutdownReason()
	if !down {
		return nil
	}
	switch why {
	case abi.ShutdownPoweroff:
		return s.endGuest(stream.ReasonPoweroff)
	case abi.ShutdownReboot:
		return s.endGuest(stream.ReasonReboot)
	case abi.ShutdownSoftReset:
		// kexec: the domain stays, with memory that is not ours to follow.
		return s.step(replica.Unprotect{})
	case abi.ShutdownSuspend:
		return nil
	}
	return s.endGuest(stream.ReasonCrash)
}

func (s *Session) endGuest(why stream.Reason) error {
	if s.shutdown {
		return nil
	}
	s.shutdown = true
	s.log.Info("the guest has ended", s.who("reason", why)...)
	return s.step(replica.GuestEnded{Reason: why})
}

func (s *Session) closeCapture() {
	if s.evtchns != nil {
		_ = s.evtchns.Close()
		s.evtchns = nil
	}
	if s.capture == nil {
		return
	}
	if err := s.capture.Close(); err != nil {
		s.log.Error("unmapping the guest", s.who("error", err)...)
	}
	s.capture = nil
}

// begin takes up the tap's notification port and the store's and console's
// ports, once Kemari is enabled for the domain.
func (s *Session) begin(status kemariop.Status) error {
	var err error
	if s.evtchns, err = evtchn.Open(); err != nil {
		return err
	}
	if s.port, err = s.evtchns.BindInterdomain(s.cfg.Dom, status.Port); err != nil {
		return err
	}
	s.helpers.Go(func() { s.wait(s.evtchns, s.port) })
	// Their back ends are dom0's own; what the guest says to them is not held.
	for _, index := range []uint32{abi.HVMParamStoreEvtchn, abi.HVMParamConsoleEvtchn} {
		port, err := s.cfg.Host.Ctl.GetHVMParam(s.cfg.Dom, index)
		if err != nil {
			return err
		}
		if port != 0 {
			if err := s.op.Tap(abi.Port(port), kemariop.TapPass); err != nil {
				return err
			}
		}
	}
	return s.followStore()
}

// wait turns Xen's notifications into triggers.
func (s *Session) wait(h *evtchn.Handle, port abi.Port) {
	var buf [16]abi.Port
	for {
		n, err := h.Wait(buf[:])
		if err != nil && !errors.Is(err, evtchn.ErrOverflow) {
			return // closed
		}
		if err := h.Unmask(append(buf[:n], port)...); err != nil {
			return
		}
		s.Sync()
	}
}

// enable turns Kemari on for the domain and maps it.
func (s *Session) enable() error {
	h := s.cfg.Host
	pages := uint32(h.Config.DirtyPages)
	c, status, err := NewCapture(s.op, h.Memory, h.Ctl, kemariop.EnableParams{
		Role: kemariop.RolePrimary, DirtyMax: pages, DirtyMark: pages / 4 * 3,
	})
	if err != nil {
		return err
	}
	s.capture, s.xen = c, kemariop.SyncResult{} // Xen counts anew
	return s.begin(status)
}

// adopt takes up what an earlier daemon has left.
func (s *Session) adopt() error {
	info, err := s.cfg.Host.Ctl.DomainInfo(s.cfg.Dom)
	if err != nil && !errors.Is(err, errNoDomain) {
		return err
	}
	if err != nil || info.UUID != [16]byte(s.cfg.Guest) {
		s.dead, s.frozen = true, false
		if err := s.start(); err != nil || s.machine.Record().Phase == lease.HandedOver {
			return err
		}
		return s.endGuest(stream.ReasonDestroyed)
	}
	status, err := s.op.Status()
	if err != nil {
		return err
	}
	s.frozen = status.Role == kemariop.RolePrimary && status.Is(kemariop.StateHarvested)
	if status.Role == kemariop.RolePrimary {
		if s.capture, err = AdoptCapture(s.op, s.cfg.Host.Memory, s.cfg.Host.Ctl, status); err != nil {
			return err
		}
		if err := s.begin(status); err != nil {
			return err
		}
		s.xen = s.capture.Shared().LastSync()
		s.freeze()
		// The disks of a guest that was handed over are the other host's: what this
		// one has not answered is done again there.
		if s.machine.Record().Phase != lease.HandedOver {
			if err := s.cfg.Disks.Recover(); err != nil {
				return err
			}
		}
		if !s.frozen {
			s.thaw()
		}
		if status.Is(kemariop.StateTriggered) {
			s.wanted = true
		}
	} else if s.machine.Record().Phase == lease.Protecting {
		return fmt.Errorf("%s: Xen does not hold the guest's output, although %s says that it is protected; "+
			"was it created anew behind kemarid's back?", host.Guest(s.cfg.Name, s.cfg.Guest), s.cfg.Host.Records.Dir)
	}
	if err := s.start(); err != nil {
		return err
	}
	return s.lookAtDomain()
}

// start does what the machine does first after a restart.
func (s *Session) start() error {
	for _, a := range s.machine.Start() {
		if err := s.act(a); err != nil {
			return err
		}
	}
	rec := s.machine.Record()
	s.pulse.Arm(rec.Phase == lease.Protecting)
	s.status.note(rec, s.machine.Waiting())
	s.resetTimer()
	return nil
}
