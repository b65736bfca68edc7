// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"github.com/kemari-ft/kemari/toolstack/lease"
	"github.com/kemari-ft/kemari/toolstack/stream"
)

// Event is something that happened.
type Event interface{ event() }

// Events of both machines.
type (
	// PeerHello: the peer sent HELLO, over a new connection.
	PeerHello struct {
		Conn  uint64
		Hello *stream.Hello
	}
	// Disconnected: the connection is gone.
	Disconnected struct {
		Conn uint64
		Err  error
	}
	// PeerJudged: the failure detector changed its mind, or still says Dead
	// or Hung after a fence failed.
	PeerJudged struct{ Verdict lease.Verdict }
	// FenceDone: the fence command has ended.  Err is nil only if it proved
	// that the peer is off.
	FenceDone struct{ Err error }
)

// Events of a Secondary.
type (
	// ShellDescribed: SHELL came.
	ShellDescribed struct {
		Conn  uint64
		Shell *stream.Shell
	}
	// ShellFailed: BuildShell failed, or the shell cannot be written to any
	// more: a batch or an epoch could not be applied.
	ShellFailed struct{ Err error }
	// EpochArrived: an epoch came whole.
	EpochArrived struct {
		Conn  uint64
		Epoch *stream.Epoch
	}
	// EpochApplied: Apply has ended well.
	EpochApplied struct{ Generation, Epoch uint64 }
	// StreamDropped: the stream was torn, corrupt or out of sequence.
	StreamDropped struct {
		Conn uint64
		Err  error
	}
	// DiscardAsked: DISCARD came.
	DiscardAsked struct {
		Conn       uint64
		Generation uint64
	}
	// GuestGone: END came.
	GuestGone struct {
		Conn       uint64
		Generation uint64
		Reason     stream.Reason
	}
	// PeerLetGo: LET_GO came.
	PeerLetGo struct {
		Conn              uint64
		Generation, Epoch uint64
	}
	// PeerLeaseExpired: the primary's right to run the guest has run out.
	PeerLeaseExpired struct{}
)

// Events of a Primary.
type (
	// Protect: the operator wants the guest protected, with a copy at the peer that
	// the URI names.
	Protect struct{ Peer string }
	// Connected: the connection stands, nothing has been sent.
	Connected struct{ Conn uint64 }
	// CopyRound: a round of the first copy, before the last, was harvested
	// and sent.
	CopyRound struct{}
	// Harvested: the guest is frozen and what changed has been harvested, as
	// the next epoch.
	Harvested struct{}
	// Acked: ACK came.
	Acked struct {
		Conn              uint64
		Generation, Epoch uint64
	}
	// PeerIsOff: the operator's word that the peer's host is off, in place of
	// a fence command's, for now and not for later.
	PeerIsOff struct{}
	// PeerDiscarded: DISCARDED came.
	PeerDiscarded struct {
		Conn       uint64
		Generation uint64
	}
	// PeerRefused: REFUSE came.
	PeerRefused struct {
		Conn      uint64
		TakenOver bool // see stream.Refuse
		Reasons   []string
	}
	// Unprotect: the operator wants the protection to end.
	Unprotect struct{}
	// Resync: all of memory must be sent again (XEN_KEMARI_LOST).
	Resync struct{}
	// HandOver: the operator wants the guest to go on at the secondary.
	HandOver struct{}
	// GuestEnded: the guest shut down, crashed or was destroyed.
	GuestEnded struct{ Reason stream.Reason }
)

func (PeerHello) event()        {}
func (Disconnected) event()     {}
func (PeerJudged) event()       {}
func (FenceDone) event()        {}
func (PeerIsOff) event()        {}
func (ShellDescribed) event()   {}
func (ShellFailed) event()      {}
func (EpochArrived) event()     {}
func (EpochApplied) event()     {}
func (StreamDropped) event()    {}
func (DiscardAsked) event()     {}
func (GuestGone) event()        {}
func (PeerLetGo) event()        {}
func (PeerLeaseExpired) event() {}
func (Protect) event()          {}
func (Connected) event()        {}
func (CopyRound) event()        {}
func (Harvested) event()        {}
func (Acked) event()            {}
func (PeerDiscarded) event()    {}
func (PeerRefused) event()      {}
func (Unprotect) event()        {}
func (Resync) event()           {}
func (HandOver) event()         {}
func (GuestEnded) event()       {}

// Action is something to be done.
type Action interface{ action() }

// Actions of both machines.
type (
	// Persist: write the record to disk, atomically and durably.
	Persist struct{ Record lease.Record }
	// SendHello: send HELLO with these two fields.
	SendHello struct{ Generation, Epoch uint64 }
	// Fence: run the fence command against the peer and report FenceDone.
	Fence struct{ Why string }
	// Hangup: close the connection.
	Hangup struct{ Why string }
	// Report: tell the operator.
	Report struct{ Text string }
)

// Actions of a Secondary.
type (
	// SendRefuse: send REFUSE and close the connection.
	SendRefuse struct{ Refuse stream.Refuse }
	// BuildShell: make the shell, or empty the one which is there.
	BuildShell struct{ Shell *stream.Shell }
	// SendAck: send ACK.
	SendAck struct{ Generation, Epoch uint64 }
	// Apply: write the epoch's pages and holes to the shell, release the
	// epoch, and report EpochApplied.
	Apply struct{ Epoch *stream.Epoch }
	// DestroyShell: destroy the shell, if there is one.
	DestroyShell struct{}
	// SendDiscarded: send DISCARDED.
	SendDiscarded struct{ Generation uint64 }
	// Activate: set the state in Secondary.Stage, write its always-sent
	// pages, start the back ends, resume.
	Activate struct{ Generation, Epoch uint64 }
)

// Actions of a Primary.
type (
	// Connect: connect to the secondary, until it works.
	Connect struct{}
	// StartCopy: send SHELL, then copy all of memory.
	StartCopy struct{ Generation uint64 }
	// ReleaseRound: let the guest run and its output go, in the first copy.
	ReleaseRound struct{}
	// SendEpoch: send the harvested epoch under this number.  It stays
	// harvested, to be sent again, until it is released.
	SendEpoch struct {
		Generation, Epoch uint64
		Full              bool
	}
	// Harvest: freeze the guest and harvest, together with whatever an
	// earlier daemon harvested and did not release.
	Harvest struct{}
	// Release: let the output of the epoch go and the guest run.
	Release struct{ Epoch uint64 }
	// SendDiscard, SendEnd and SendLetGo: send that record.
	SendDiscard struct{ Generation uint64 }
	SendEnd     struct {
		Generation uint64
		Reason     stream.Reason
	}
	SendLetGo struct{ Generation, Epoch uint64 }
	// ReleaseAll: let all output go and the guest run, unprotected.
	ReleaseAll struct{ Why string }
	// DestroyGuest: destroy the frozen guest without letting output go.
	DestroyGuest struct{}
)

func (Persist) action()       {}
func (SendHello) action()     {}
func (Fence) action()         {}
func (Hangup) action()        {}
func (Report) action()        {}
func (SendRefuse) action()    {}
func (BuildShell) action()    {}
func (SendAck) action()       {}
func (Apply) action()         {}
func (DestroyShell) action()  {}
func (SendDiscarded) action() {}
func (Activate) action()      {}
func (Connect) action()       {}
func (StartCopy) action()     {}
func (ReleaseRound) action()  {}
func (SendEpoch) action()     {}
func (Harvest) action()       {}
func (Release) action()       {}
func (SendDiscard) action()   {}
func (SendEnd) action()       {}
func (SendLetGo) action()     {}
func (ReleaseAll) action()    {}
func (DestroyGuest) action()  {}
