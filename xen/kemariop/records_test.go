// SPDX-License-Identifier: Apache-2.0

package kemariop

import (
	"bytes"
	"errors"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/kemari-ft/kemari/xen/abi"
)

func genState(t *rapid.T) *State {
	u64 := rapid.Uint64()
	s := &State{Domain: DomainRec{
		Version: InterfaceVersion, NrVCPUs: rapid.Uint32Range(1, 128).Draw(t, "vcpus"),
		EvtchnABI: rapid.SampledFrom([]uint32{Evtchn2Level, EvtchnFIFO}).Draw(t, "abi"), GrantFrames: rapid.Uint32().Draw(t, "frames"),
		VMAssist: u64.Draw(t, "assist"), SharedInfoGFN: u64.Draw(t, "shinfo"), GuestTime: u64.Draw(t, "time"), CallbackIRQ: u64.Draw(t, "callback"),
	}}
	if s.Domain.EvtchnABI == EvtchnFIFO {
		for _, g := range rapid.SliceOfN(u64, 0, 8).Draw(t, "fifo") {
			s.FIFO = append(s.FIFO, abi.GFN(g))
		}
	}
	for id := range s.Domain.NrVCPUs {
		if !rapid.Bool().Draw(t, "online") {
			continue
		}
		v := VCPURec{ID: abi.VCPU(id), Flags: rapid.Uint32().Draw(t, "flags"), UpcallVector: rapid.Uint8().Draw(t, "vector"),
			VCPUInfo: u64.Draw(t, "info"), Runstate: u64.Draw(t, "runstate"), TimeArea: u64.Draw(t, "time"),
			SshotExpires: u64.Draw(t, "sshot"), PeriodicPeriod: u64.Draw(t, "periodic"), IntrShadow: u64.Draw(t, "shadow"),
			PendingDbg: u64.Draw(t, "dbg"), FIFOControl: u64.Draw(t, "control")}
		for i := range v.RunstateTime {
			v.RunstateTime[i] = u64.Draw(t, "rt")
		}
		v.FIFOTail[15] = rapid.Uint32().Draw(t, "tail")
		s.VCPUs = append(s.VCPUs, v)
	}
	for p := abi.Port(1); p < MaxPorts; p += abi.Port(rapid.IntRange(1, 1000).Draw(t, "gap")) {
		s.Evtchns = append(s.Evtchns, EvtchnRec{Port: p,
			Status: rapid.SampledFrom([]uint8{1, 2, 4, 5}).Draw(t, "status"), Priority: rapid.Uint8().Draw(t, "prio"),
			VCPU:      uint16(rapid.Uint32Range(0, s.Domain.NrVCPUs-1).Draw(t, "vcpu")),
			LastqVCPU: rapid.Uint16().Draw(t, "lastq"), LastqPrio: rapid.Uint8().Draw(t, "lastp"),
			Pending: rapid.Uint8().Draw(t, "pending"), VIRQOrRemote: rapid.Uint32().Draw(t, "u")})
	}
	if rapid.Bool().Draw(t, "hvm") {
		s.HVM = append([]byte{}, rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "context")...)
	}
	return s
}

func TestStateRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genState(t)
		b := s.Encode()
		if len(b)%8 != 0 {
			t.Fatalf("%d bytes are not padded", len(b))
		}
		got, err := DecodeState(b)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(s, got); d != "" {
			t.Fatal(d)
		}
	})
}

// TestRecordsMatchTheCStructs decodes records laid out by the C structs of
// golden_test.go, so that no field of the hand-written codec is off.
func TestRecordsMatchTheCStructs(t *testing.T) {
	d := domainC{Version: 1, NrVCPUs: 3, EvtchnABI: 3, GrantFrames: 4, VMAssist: 5, SharedInfoGFN: 6, GuestTime: 7, CallbackIRQ: 8}
	v := vcpuC{Flags: 1, UpcallVector: 0xf3, VCPUInfo: 2, Runstate: 3, TimeArea: 4, RunstateTime: [4]uint64{5, 6, 7, 8},
		SshotExpires: 9, PeriodicPeriod: 10, IntrShadow: 11, PendingDbg: 12, FIFOControl: 13, FIFOTail: [16]uint32{14, 15, 15: 16}}
	e := evtchnC{Port: 1, Status: 2, Priority: 3, VCPU: 2, LastqVCPU: 5, LastqPriority: 6, Pending: 1, U: 8}
	b := append(appendRec(nil, recDomain, 0, domainLen), raw(&d)...)
	b = appendRec(b, recFIFO, 0, 0) // no event array yet
	b = append(appendRec(b, recVCPU, 2, vcpuLen), raw(&v)...)
	b = append(appendRec(b, recEvtchn, 0, evtchnLen), raw(&e)...)
	b = appendRec(b, recEnd, 0, 0)
	want := &State{
		Domain: DomainRec{1, 3, 3, 4, 5, 6, 7, 8},
		VCPUs: []VCPURec{{ID: 2, Flags: 1, UpcallVector: 0xf3, VCPUInfo: 2, Runstate: 3, TimeArea: 4, RunstateTime: [4]uint64{5, 6, 7, 8},
			SshotExpires: 9, PeriodicPeriod: 10, IntrShadow: 11, PendingDbg: 12, FIFOControl: 13, FIFOTail: [16]uint32{14, 15, 15: 16}}},
		Evtchns: []EvtchnRec{{1, 2, 3, 2, 5, 6, 1, 8}},
	}
	got, err := DecodeState(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if !bytes.Equal(got.Encode(), b) {
		t.Error("encoding it again gives other bytes")
	}
}

func raw[T any](v *T) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v)) }

func TestDecodeStateRejects(t *testing.T) {
	domain := (&State{Domain: DomainRec{Version: 1, NrVCPUs: 2, EvtchnABI: 3}}).Encode()
	domain = domain[:len(domain)-recHeaderLen]
	end := appendRec(nil, recEnd, 0, 0)
	vcpu := func(id uint16) []byte { return append(appendRec(nil, recVCPU, id, vcpuLen), make([]byte, vcpuLen)...) }
	port := func(ports ...uint32) []byte {
		b := appendRec(nil, recEvtchn, 0, len(ports)*evtchnLen)
		for _, p := range ports {
			b = append(appendU32(b, p), 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
		}
		return b
	}
	cat := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	ok := cat(domain, vcpu(0), vcpu(1), port(1, 2), end)
	if _, err := DecodeState(ok); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"empty":           nil,
		"no end":          domain,
		"only end":        end,
		"vcpu first":      cat(vcpu(0), domain, end),
		"two domains":     cat(domain, domain, end),
		"order":           cat(domain, port(1), vcpu(0), end),
		"vcpu twice":      cat(domain, vcpu(0), vcpu(0), end),
		"vcpus descend":   cat(domain, vcpu(1), vcpu(0), end),
		"vcpu too high":   cat(domain, vcpu(2), end),
		"port 0":          cat(domain, port(0), end),
		"port too high":   cat(domain, port(MaxPorts), end),
		"port twice":      cat(domain, port(3, 3), end),
		"after end":       cat(ok, end),
		"trailing byte":   append(bytes.Clone(ok), 0),
		"unknown type":    cat(domain, appendRec(nil, 6, 0, 0), end),
		"long":            cat(domain, appendRec(nil, recHVM, 0, 1<<30), end),
		"huge":            cat(domain, appendRec(nil, recHVM, 0, 1<<32-1), end),
		"short domain":    cat(appendRec(nil, recDomain, 0, 8), make([]byte, 8), end),
		"odd fifo":        cat(domain, appendRec(nil, recFIFO, 0, 4), make([]byte, 8), end),
		"fifo of 2-level": cat((&State{Domain: DomainRec{Version: 1, NrVCPUs: 2, EvtchnABI: 2}}).Encode()[:recHeaderLen+domainLen], appendRec(nil, recFIFO, 0, 0), end),
		"end with length": cat(domain, appendRec(nil, recEnd, 0, 8), make([]byte, 8)),
		"domain instance": cat(appendRec(nil, recDomain, 1, domainLen), domain[recHeaderLen:], end),
		"too big":         make([]byte, StateMax+1),
	} {
		if _, err := DecodeState(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range ok {
		if _, err := DecodeState(ok[:i]); err == nil {
			t.Errorf("the first %d bytes were accepted", i)
		}
	}
}

func FuzzDecodeState(f *testing.F) {
	f.Add([]byte{})
	f.Add((&State{Domain: DomainRec{Version: 1, NrVCPUs: 1, EvtchnABI: 3}, FIFO: []abi.GFN{7}, VCPUs: []VCPURec{{}},
		Evtchns: []EvtchnRec{{Port: 1, Status: 1}}, HVM: []byte{1, 2, 3}}).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeState(b)
		if err != nil {
			return
		}
		again, err := DecodeState(s.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(s, again); d != "" {
			t.Fatal(d)
		}
	})
}
