// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"encoding/binary"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/kemari-ft/kemari/xen/abi"
)

// Role is the sender's role.
type Role uint32

// The two roles of a pair.
const (
	Primary   Role = 1
	Secondary Role = 2
)

func (r Role) String() string {
	switch r {
	case Primary:
		return "primary"
	case Secondary:
		return "secondary"
	}
	return "unknown role"
}

// Hello is the first record of each direction.
type Hello struct {
	Role       Role
	ABI        uint32 // XEN_KEMARI_VERSION of the sender's hypervisor
	Generation uint64
	// Epoch is the newest epoch that the secondary has acknowledged and
	// still holds: 0 if it has no image of Generation.  The primary's is 0.
	Epoch      uint64
	Guest      [16]byte // UUID of the guest
	Host       [16]byte // UUID of the sending host
	DomID      abi.DomID
	TSCkHz     uint32
	CPUVendor  string // at most 12 octets, as CPUID leaf 0 spells it
	XenVersion string
}

// Shell describes the guest, so that the secondary can make a shell for it.
type Shell struct {
	VCPUs       uint32
	EpochPages  uint32 // most pages, zeros and holes in one staged epoch
	MemoryPages uint64
	MaxGFN      abi.GFN // highest gfn in PAGES, ZEROS and HOLES
	JSON        []byte  // opaque to this package, and hostile to its user
}

// Ring is what was captured of one ring while the guest was frozen.
type Ring struct {
	Class   uint16 // device class: RingVBD
	Queue   uint16
	DevID   uint32
	RspProd uint32
	ReqProd uint32 // P_c, the gate
}

// RingVBD is the class of blkif rings.
const RingVBD = 1

// AlwaysPage is a page which is kept in the stage and enters the shell at
// activation only.
type AlwaysPage struct {
	Kind  AlwaysKind
	Index uint32
	GFN   abi.GFN
	Lines LineSet // not 0: Data is for Patch, all else is as in the epoch before
	Data  []byte  // nil: as in the epoch before
}

// span returns how long the contents are with which data begins, if all are there.
func (p *AlwaysPage) span(data []byte) (n int, ok bool) {
	if p.Lines != 0 {
		return p.Lines.span(data)
	}
	return abi.PageSize, len(data) >= abi.PageSize
}

// AlwaysKind says what an always-sent page is.
type AlwaysKind uint16

// Kinds below 0x100 are XEN_KEMARI_ALWAYS_* of xen/include/public/kemari.h.
const (
	AlwaysSharedInfo AlwaysKind = 0
	AlwaysGrant      AlwaysKind = 1
	AlwaysFIFO       AlwaysKind = 2
	AlwaysVCPU       AlwaysKind = 3
	AlwaysStore      AlwaysKind = 0x100
	AlwaysConsole    AlwaysKind = 0x101
	AlwaysRing       AlwaysKind = 0x102
)

// Reason says why a protection ended.
type Reason uint32

// Reasons of the END record.
const (
	ReasonPoweroff  Reason = 1
	ReasonReboot    Reason = 2
	ReasonCrash     Reason = 3
	ReasonDestroyed Reason = 4
)

// The records without more than numbers, as Next returns them.
type (
	Ack       struct{ Generation, Epoch uint64 }
	Heartbeat struct{ Generation, Sequence uint64 }
	Discard   struct{ Generation uint64 }
	Discarded struct{ Generation uint64 }
	LetGo     struct{ Generation, Epoch uint64 }
	End       struct {
		Generation uint64
		Reason     Reason
	}
	Refuse struct {
		// TakenOver: the guest goes on, or went on, at the secondary. A primary
		// that has let go of it has nothing to do any more.
		TakenOver bool
		Reasons   []string
	}
)

var le = binary.LittleEndian

func appendHello(b []byte, h *Hello) ([]byte, error) {
	if len(h.CPUVendor) > 12 || len(h.XenVersion) > MaxXenVersion {
		return nil, limitf("CPU vendor %q or Xen version %q too long", h.CPUVendor, h.XenVersion)
	}
	b = le.AppendUint32(b, h.ABI)
	b = le.AppendUint32(b, uint32(h.Role))
	b = le.AppendUint64(b, h.Generation)
	b = le.AppendUint64(b, h.Epoch)
	b = append(b, h.Guest[:]...)
	b = append(b, h.Host[:]...)
	b = le.AppendUint32(b, uint32(h.DomID))
	b = le.AppendUint32(b, h.TSCkHz)
	var vendor [12]byte
	copy(vendor[:], h.CPUVendor)
	b = append(b, vendor[:]...)
	b = le.AppendUint32(b, uint32(len(h.XenVersion)))
	return append(b, h.XenVersion...), nil
}

func parseHello(b []byte) (*Hello, error) {
	h := &Hello{
		ABI: le.Uint32(b), Role: Role(le.Uint32(b[4:])),
		Generation: le.Uint64(b[8:]), Epoch: le.Uint64(b[16:]),
		Guest: [16]byte(b[24:40]), Host: [16]byte(b[40:56]),
		TSCkHz: le.Uint32(b[60:]),
	}
	domid := le.Uint32(b[56:])
	if domid >= uint32(abi.DomIDSelf) {
		return nil, corruptf("domid %d is reserved", domid)
	}
	h.DomID = abi.DomID(domid)
	h.CPUVendor = string(bytes.TrimRight(b[64:76], "\x00"))
	if n := le.Uint32(b[76:]); uint64(n) != uint64(len(b)-helloLen) {
		return nil, corruptf("length of the Xen version is %d, %d octets follow", n, len(b)-helloLen)
	}
	h.XenVersion = string(b[helloLen:])
	if !printable(h.CPUVendor) || !printable(h.XenVersion) {
		return nil, corruptf("CPU vendor %q or Xen version %q is not printable", h.CPUVendor, h.XenVersion)
	}
	return h, nil
}

func appendShell(b []byte, s *Shell) ([]byte, error) {
	if len(s.JSON) > MaxShell {
		return nil, limitf("guest description of %d octets, at most %d", len(s.JSON), MaxShell)
	}
	b = le.AppendUint32(b, s.VCPUs)
	b = le.AppendUint32(b, s.EpochPages)
	b = le.AppendUint64(b, s.MemoryPages)
	b = le.AppendUint64(b, uint64(s.MaxGFN))
	return append(b, s.JSON...), nil
}

func parseShell(b []byte, max Limits) (*Shell, error) {
	s := &Shell{
		VCPUs: le.Uint32(b), EpochPages: le.Uint32(b[4:]),
		MemoryPages: le.Uint64(b[8:]), MaxGFN: abi.GFN(le.Uint64(b[16:])),
		JSON: bytes.Clone(b[shellLen:]),
	}
	if s.VCPUs == 0 || s.EpochPages == 0 || s.MemoryPages == 0 {
		return nil, corruptf("guest with %d vCPUs, %d pages, %d pages an epoch", s.VCPUs, s.MemoryPages, s.EpochPages)
	}
	return s, max.check(s)
}

// takenOver is bit 0 of REFUSE's flags.
const takenOver = 1 << 0

func appendRefuse(b []byte, refuse *Refuse) ([]byte, error) {
	if n := len(refuse.Reasons); n == 0 || n > MaxReasons {
		return nil, limitf("%d reasons, 1 to %d allowed", n, MaxReasons)
	}
	flags := uint32(0)
	if refuse.TakenOver {
		flags = takenOver
	}
	b = le.AppendUint32(b, uint32(len(refuse.Reasons)))
	b = le.AppendUint32(b, flags)
	for _, r := range refuse.Reasons {
		r = clean(r)
		b = le.AppendUint64(b, uint64(len(r)))
		b = append(b, r...)
		b = append(b, make([]byte, padLen(len(r)))...)
	}
	return b, nil
}

func parseRefuse(b []byte) (*Refuse, error) {
	n, flags := le.Uint32(b), le.Uint32(b[4:])
	b = b[8:]
	if n == 0 || n > MaxReasons {
		return nil, limitf("%d reasons, 1 to %d allowed", n, MaxReasons)
	}
	if flags&^takenOver != 0 {
		return nil, corruptf("flags %#x", flags)
	}
	r := &Refuse{TakenOver: flags&takenOver != 0}
	for range n {
		if len(b) < 8 {
			return nil, corruptf("%d reasons announced, %d found", n, len(r.Reasons))
		}
		l := le.Uint64(b)
		b = b[8:]
		if l > MaxReason || int(l)+padLen(int(l)) > len(b) {
			return nil, corruptf("reason of %d octets, %d left", l, len(b))
		}
		text := string(b[:l])
		if !printable(text) {
			return nil, corruptf("reason %q is not printable", text)
		}
		for _, v := range b[l : int(l)+padLen(int(l))] {
			if v != 0 {
				return nil, corruptf("padding is not zero")
			}
		}
		r.Reasons = append(r.Reasons, text)
		b = b[int(l)+padLen(int(l)):]
	}
	if len(b) != 0 {
		return nil, corruptf("%d octets after the last reason", len(b))
	}
	return r, nil
}

// printable says whether a peer's text may be shown to an operator: a control
// character could forge a log line.
func printable(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			return '?'
		}
		return r
	}, s)
	for len(s) > MaxReason {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return s
}
