// SPDX-License-Identifier: Apache-2.0

package kemariop

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/kemari-ft/kemari/xen/abi"
)

// ErrMalformed is matched by the errors about record streams that do not parse.
var ErrMalformed = errors.New("malformed state records")

// Types of state records (XEN_KEMARI_REC_*), in the order of the stream.
const (
	recEnd    = 0
	recDomain = 1
	recFIFO   = 2
	recVCPU   = 3
	recEvtchn = 4
	recHVM    = 5
)

// Sizes of struct xen_kemari_rec, _domain, _vcpu and _evtchn.
const (
	recHeaderLen = 8
	domainLen    = 48
	vcpuLen      = 168
	evtchnLen    = 16
)

// Event channel ABIs of DomainRec.
const (
	Evtchn2Level = 2
	EvtchnFIFO   = 3
)

// Flags of VCPURec (XEN_KEMARI_VCPU_*).
const (
	VCPUUp       = 1 << 0
	VCPUNMI      = 1 << 1 // NMI pending
	VCPUSshot    = 1 << 2 // singleshot timer armed
	VCPURunPhys  = 1 << 3 // Runstate is a guest physical address
	VCPUTimePhys = 1 << 4 // TimeArea likewise
)

// DomainRec is struct xen_kemari_domain.
type DomainRec struct {
	Version       uint32
	NrVCPUs       uint32
	EvtchnABI     uint32 // Evtchn2Level or EvtchnFIFO
	GrantFrames   uint32
	VMAssist      uint64
	SharedInfoGFN uint64 // or NoAddr
	GuestTime     uint64 // system time (ns) at the instant of the HVM context's TSC
	CallbackIRQ   uint64 // HVM_PARAM_CALLBACK_IRQ
}

// VCPURec is struct xen_kemari_vcpu, of vCPU ID.
type VCPURec struct {
	ID             abi.VCPU
	Flags          uint32 // VCPU*
	UpcallVector   uint8
	VCPUInfo       uint64 // guest physical address or NoAddr
	Runstate       uint64 // address or NoAddr
	TimeArea       uint64 // address or NoAddr
	RunstateTime   [4]uint64
	SshotExpires   uint64 // guest system time, ns
	PeriodicPeriod uint64 // ns, 0: off
	IntrShadow     uint64
	PendingDbg     uint64
	FIFOControl    uint64 // guest physical address or NoAddr
	FIFOTail       [16]uint32
}

// EvtchnRec is struct xen_kemari_evtchn.
type EvtchnRec struct {
	Port         abi.Port
	Status       uint8 // abi.EvtchnStatUnbound, Interdomain, VIRQ, IPI
	Priority     uint8
	VCPU         uint16 // notified vCPU
	LastqVCPU    uint16
	LastqPrio    uint8
	Pending      uint8 // raised before its event word existed
	VIRQOrRemote uint32
}

// State is the guest state of one instant that Xen holds outside the guest's
// memory.
type State struct {
	Domain  DomainRec
	FIFO    []abi.GFN // event array pages
	VCPUs   []VCPURec
	Evtchns []EvtchnRec
	HVM     []byte // HVM context; nil in what SetState takes
}

// DecodeState decodes a record stream. It accepts only what kemari.h describes:
// records in order of type, each at most once but VCPU, vCPUs and ports in
// ascending order, exact lengths, one END, nothing after it. Whether addresses
// lie in the guest is for Xen to judge. Nothing of b is kept.
func DecodeState(b []byte) (*State, error) {
	if len(b) > StateMax {
		return nil, malformed("%d bytes", len(b))
	}
	s := &State{}
	last := uint16(0)
	for {
		if len(b) < recHeaderLen {
			return nil, malformed("no END record")
		}
		typ := binary.LittleEndian.Uint16(b)
		inst := binary.LittleEndian.Uint16(b[2:])
		n := binary.LittleEndian.Uint32(b[4:])
		b = b[recHeaderLen:]
		padded := (uint64(n) + 7) &^ 7
		if padded > uint64(len(b)) {
			return nil, malformed("record type %d claims %d bytes, %d are left", typ, n, len(b))
		}
		data := b[:n]
		b = b[padded:]
		if last == 0 && typ != recDomain {
			return nil, malformed("begins with record type %d", typ)
		}
		if typ == recEnd {
			if n != 0 || inst != 0 || len(b) != 0 {
				return nil, malformed("END record with instance %d, length %d, %d bytes after it", inst, n, len(b))
			}
			return s, nil
		}
		if typ < last || typ == last && typ != recVCPU {
			return nil, malformed("record type %d after type %d", typ, last)
		}
		last = typ
		if inst != 0 && typ != recVCPU {
			return nil, malformed("record type %d of instance %d", typ, inst)
		}
		if err := s.decode(typ, inst, data); err != nil {
			return nil, err
		}
	}
}

func (s *State) decode(typ, inst uint16, data []byte) error {
	switch typ {
	case recDomain:
		return s.decodeDomain(data)
	case recFIFO:
		// Empty if the guest has set up no more than control blocks.
		if len(data)%8 != 0 || s.Domain.EvtchnABI != EvtchnFIFO {
			return malformed("FIFO record of %d bytes, event channel ABI %d", len(data), s.Domain.EvtchnABI)
		}
		for ; len(data) > 0; data = data[8:] {
			s.FIFO = append(s.FIFO, abi.GFN(binary.LittleEndian.Uint64(data)))
		}
		return nil
	case recVCPU:
		return s.decodeVCPU(inst, data)
	case recEvtchn:
		return s.decodeEvtchns(data)
	case recHVM:
		s.HVM = append([]byte{}, data...)
		return nil
	}
	return malformed("unknown record type %d", typ)
}

func (s *State) decodeDomain(b []byte) error {
	if len(b) != domainLen {
		return malformed("DOMAIN record of %d bytes", len(b))
	}
	r := reader{b}
	s.Domain = DomainRec{
		Version: r.u32(), NrVCPUs: r.u32(), EvtchnABI: r.u32(), GrantFrames: r.u32(),
		VMAssist: r.u64(), SharedInfoGFN: r.u64(), GuestTime: r.u64(), CallbackIRQ: r.u64(),
	}
	switch d := &s.Domain; {
	case d.Version != InterfaceVersion:
		return malformed("version %d", d.Version)
	case d.EvtchnABI != Evtchn2Level && d.EvtchnABI != EvtchnFIFO:
		return malformed("event channel ABI %d", d.EvtchnABI)
	}
	return nil
}

func (s *State) decodeVCPU(id uint16, b []byte) error {
	if len(b) != vcpuLen {
		return malformed("VCPU record of %d bytes", len(b))
	}
	if uint32(id) >= s.Domain.NrVCPUs {
		return malformed("vCPU %d of %d", id, s.Domain.NrVCPUs)
	}
	if n := len(s.VCPUs); n > 0 && s.VCPUs[n-1].ID >= abi.VCPU(id) {
		return malformed("vCPU %d after vCPU %d", id, s.VCPUs[n-1].ID)
	}
	r := reader{b}
	v := VCPURec{ID: abi.VCPU(id), Flags: r.u32(), UpcallVector: r.u8()}
	r.skip(3)
	v.VCPUInfo, v.Runstate, v.TimeArea = r.u64(), r.u64(), r.u64()
	for i := range v.RunstateTime {
		v.RunstateTime[i] = r.u64()
	}
	v.SshotExpires, v.PeriodicPeriod = r.u64(), r.u64()
	v.IntrShadow, v.PendingDbg, v.FIFOControl = r.u64(), r.u64(), r.u64()
	for i := range v.FIFOTail {
		v.FIFOTail[i] = r.u32()
	}
	s.VCPUs = append(s.VCPUs, v)
	return nil
}

func (s *State) decodeEvtchns(b []byte) error {
	if len(b)%evtchnLen != 0 || len(b) > MaxPorts*evtchnLen {
		return malformed("EVTCHN record of %d bytes", len(b))
	}
	for ; len(b) > 0; b = b[evtchnLen:] {
		r := reader{b}
		e := EvtchnRec{Port: abi.Port(r.u32()), Status: r.u8(), Priority: r.u8(),
			VCPU: r.u16(), LastqVCPU: r.u16(), LastqPrio: r.u8(), Pending: r.u8(), VIRQOrRemote: r.u32()}
		switch e.Status {
		case abi.EvtchnStatUnbound, abi.EvtchnStatInterdomain, abi.EvtchnStatVIRQ, abi.EvtchnStatIPI:
		default:
			return malformed("port %d has status %d", e.Port, e.Status)
		}
		if e.Port == 0 || e.Port >= MaxPorts || uint32(e.VCPU) >= s.Domain.NrVCPUs {
			return malformed("port %d on vCPU %d of %d", e.Port, e.VCPU, s.Domain.NrVCPUs)
		}
		if n := len(s.Evtchns); n > 0 && s.Evtchns[n-1].Port >= e.Port {
			return malformed("port %d after port %d", e.Port, s.Evtchns[n-1].Port)
		}
		s.Evtchns = append(s.Evtchns, e)
	}
	return nil
}

// Encode encodes the state as a record stream. For SetState, which does not
// take it, clear HVM first.
func (s *State) Encode() []byte {
	d := &s.Domain
	b := appendRec(nil, recDomain, 0, domainLen)
	b = appendU32(b, d.Version, d.NrVCPUs, d.EvtchnABI, d.GrantFrames)
	b = appendU64(b, d.VMAssist, d.SharedInfoGFN, d.GuestTime, d.CallbackIRQ)
	if d.EvtchnABI == EvtchnFIFO {
		b = appendRec(b, recFIFO, 0, len(s.FIFO)*8)
		for _, gfn := range s.FIFO {
			b = appendU64(b, uint64(gfn))
		}
	}
	for i := range s.VCPUs {
		v := &s.VCPUs[i]
		b = appendRec(b, recVCPU, uint16(v.ID), vcpuLen)
		b = appendU32(b, v.Flags, uint32(v.UpcallVector))
		b = appendU64(b, v.VCPUInfo, v.Runstate, v.TimeArea)
		b = appendU64(b, v.RunstateTime[:]...)
		b = appendU64(b, v.SshotExpires, v.PeriodicPeriod, v.IntrShadow, v.PendingDbg, v.FIFOControl)
		b = appendU32(b, v.FIFOTail[:]...)
	}
	if len(s.Evtchns) > 0 {
		b = appendRec(b, recEvtchn, 0, len(s.Evtchns)*evtchnLen)
		for i := range s.Evtchns {
			e := &s.Evtchns[i]
			b = appendU32(b, uint32(e.Port))
			b = append(b, e.Status, e.Priority)
			b = binary.LittleEndian.AppendUint16(b, e.VCPU)
			b = binary.LittleEndian.AppendUint16(b, e.LastqVCPU)
			b = append(b, e.LastqPrio, e.Pending)
			b = appendU32(b, e.VIRQOrRemote)
		}
	}
	if s.HVM != nil {
		b = appendRec(b, recHVM, 0, len(s.HVM))
		b = append(b, s.HVM...)
		b = append(b, make([]byte, -len(s.HVM)&7)...)
	}
	return appendRec(b, recEnd, 0, 0)
}

func appendRec(b []byte, typ, inst uint16, n int) []byte {
	b = binary.LittleEndian.AppendUint16(b, typ)
	b = binary.LittleEndian.AppendUint16(b, inst)
	return binary.LittleEndian.AppendUint32(b, uint32(n))
}

func appendU32(b []byte, v ...uint32) []byte {
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, x)
	}
	return b
}

func appendU64(b []byte, v ...uint64) []byte {
	for _, x := range v {
		b = binary.LittleEndian.AppendUint64(b, x)
	}
	return b
}

// reader takes little-endian fields off bytes whose length was checked.
type reader struct{ b []byte }

func (r *reader) skip(n int) { r.b = r.b[n:] }
func (r *reader) u8() uint8  { v := r.b[0]; r.skip(1); return v }
func (r *reader) u16() uint16 {
	v := binary.LittleEndian.Uint16(r.b)
	r.skip(2)
	return v
}
func (r *reader) u32() uint32 {
	v := binary.LittleEndian.Uint32(r.b)
	r.skip(4)
	return v
}
func (r *reader) u64() uint64 {
	v := binary.LittleEndian.Uint64(r.b)
	r.skip(8)
	return v
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}
