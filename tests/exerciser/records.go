// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"slices"
	"syscall"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/kemariop"
)

// rec is one state record, XEN_KEMARI_REC_*.
func rec(typ, instance uint16, data []byte) []byte {
	b := binary.LittleEndian.AppendUint16(nil, typ)
	b = binary.LittleEndian.AppendUint16(b, instance)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(data)))
	b = append(b, data...)
	return append(b, make([]byte, -len(data)&7)...)
}

// Types of records.
const (
	recEnd    = 0
	recDomain = 1
	recFIFO   = 2
	recVCPU   = 3
	recEvtchn = 4
	recHVM    = 5
)

// split takes a stream apart.
func split(b []byte) (recs [][]byte) {
	for len(b) > 0 {
		n := 8 + (int(binary.LittleEndian.Uint32(b[4:]))+7)&^7
		recs = append(recs, b[:n:n])
		b = b[n:]
	}
	return recs
}

func typeOf(rec []byte) uint16 { return binary.LittleEndian.Uint16(rec) }

// find returns the first record of a type.
func find(recs [][]byte, typ uint16) int {
	return slices.IndexFunc(recs, func(r []byte) bool { return typeOf(r) == typ })
}

// badRecords are ways to spoil a good stream of a domain with one vCPU and
// ports 1 and 2.
var badRecords = []struct {
	name  string
	want  syscall.Errno
	spoil func(r [][]byte) [][]byte
}{
	{"no END", syscall.EINVAL, func(r [][]byte) [][]byte { return r[:len(r)-1] }},
	{"END with a length", syscall.EINVAL, func(r [][]byte) [][]byte {
		return append(r[:len(r)-1], rec(recEnd, 0, make([]byte, 8)))
	}},
	{"more after END", syscall.EINVAL, func(r [][]byte) [][]byte { return append(r, rec(recEnd, 0, nil)) }},
	{"a byte after END", syscall.EINVAL, func(r [][]byte) [][]byte { return append(r, []byte{0}) }},
	{"END alone", syscall.EINVAL, func(r [][]byte) [][]byte { return r[len(r)-1:] }},
	{"half a header", syscall.EINVAL, func(r [][]byte) [][]byte { return [][]byte{r[0][:4]} }},
	{"cut in a record", syscall.EINVAL, func(r [][]byte) [][]byte { return [][]byte{r[0][:20]} }},
	{"unknown record", syscall.EOPNOTSUPP, func(r [][]byte) [][]byte { return slices.Insert(r, 1, rec(77, 0, make([]byte, 8))) }},
	{"HVM record", syscall.EOPNOTSUPP, func(r [][]byte) [][]byte { return slices.Insert(r, 1, rec(recHVM, 0, make([]byte, 8))) }},
	{"two DOMAINs", syscall.EINVAL, func(r [][]byte) [][]byte { return slices.Insert(r, 1, r[0]) }},
	{"no DOMAIN", syscall.EINVAL, func(r [][]byte) [][]byte { return r[1:] }},
	{"no VCPU", syscall.EINVAL, func(r [][]byte) [][]byte { i := find(r, recVCPU); return slices.Delete(r, i, i+1) }},
	{"two VCPUs of one number", syscall.EINVAL, func(r [][]byte) [][]byte { i := find(r, recVCPU); return slices.Insert(r, i, r[i]) }},
	{"two EVTCHNs", syscall.EINVAL, func(r [][]byte) [][]byte { i := find(r, recEvtchn); return slices.Insert(r, i, r[i]) }},
	{"VCPU 9", syscall.EINVAL, spoil16(recVCPU, 2, 9)},
	{"VCPU 65535", syscall.EINVAL, spoil16(recVCPU, 2, 0xffff)},
	{"DOMAIN too short", syscall.EINVAL, spoil32(recDomain, 4, 39)},
	{"VCPU too short", syscall.EINVAL, spoil32(recVCPU, 4, 161)},
	{"length beyond the end", syscall.EINVAL, spoil32(recEvtchn, 4, 4096)},
	{"length -1", syscall.EINVAL, spoil32(recDomain, 4, 0xffffffff)},
	{"length -8", syscall.EINVAL, spoil32(recDomain, 4, 0xfffffff8)},
	{"version", syscall.EINVAL, spoil32(recDomain, 8, 2)},
	{"vCPUs", syscall.EINVAL, spoil32(recDomain, 12, 2)},
	{"FIFO ABI without FIFO record", syscall.EINVAL, spoil32(recDomain, 16, 3)},
	{"event ABI 4", syscall.EINVAL, spoil32(recDomain, 16, 4)},
	{"vm_assist", syscall.EINVAL, spoil64(recDomain, 24, 1<<63)},
	{"guest_time", syscall.EINVAL, spoil64(recDomain, 40, 1<<63)},
	{"VCPU flags", syscall.EINVAL, spoil32(recVCPU, 8, 1<<5)},
	{"upcall vector", syscall.EINVAL, spoil32(recVCPU, 12, 15)},
	{"singleshot expiry", syscall.EINVAL, spoil64(recVCPU, 72, 1<<63)},
	{"periodic timer too short", syscall.EINVAL, spoil64(recVCPU, 80, 1)},
	{"periodic timer too long", syscall.EINVAL, spoil64(recVCPU, 80, 1<<63)},
	{"FIFO tail without FIFO", syscall.EINVAL, spoil32(recVCPU, 112, 1)},
	{"FIFO tail without page", syscall.EINVAL, func(r [][]byte) [][]byte {
		r = slices.Insert(spoil32(recDomain, 16, 3)(r), 1, rec(recFIFO, 0, gfnBytes(uint64(someGFN))))
		return spoil32(recVCPU, 112, 1024)(r)
	}},
	{"odd FIFO record", syscall.EINVAL, func(r [][]byte) [][]byte { return slices.Insert(r, 1, rec(recFIFO, 0, make([]byte, 7))) }},
	{"FIFO record in 2-level ABI", syscall.EINVAL, func(r [][]byte) [][]byte {
		return slices.Insert(r, 1, rec(recFIFO, 0, gfnBytes(uint64(someGFN))))
	}},
	{"too many FIFO pages", syscall.EINVAL, func(r [][]byte) [][]byte {
		return slices.Insert(spoil32(recDomain, 16, 3)(r), 1, rec(recFIFO, 0, gfnBytes(0x4800, 0x4801, 0x4802, 0x4803, 0x4804)))
	}},
	{"vcpu_info in a hole", syscall.EINVAL, spoil64(recVCPU, 16, 0x80000<<abi.PageShift)},
	{"vcpu_info across pages", syscall.ENXIO, spoil64(recVCPU, 16, uint64(someGFN)<<abi.PageShift+4090)},
	{"odd EVTCHN record", syscall.EINVAL, spoil32(recEvtchn, 4, 17)},
	{"port 0", syscall.EINVAL, spoil32(recEvtchn, 8, 0)},
	{"port 4096", syscall.EINVAL, spoil32(recEvtchn, 24, kemariop.MaxPorts)},
	{"port twice", syscall.EINVAL, spoil32(recEvtchn, 24, 1)},
	{"port beyond the domain's limit", syscall.ENOSPC, spoil32(recEvtchn, 24, 2000)},
	{"event to VCPU 1", syscall.EINVAL, spoil16(recEvtchn, 8+6, 1)},
	{"event last on VCPU 1", syscall.EINVAL, spoil16(recEvtchn, 8+8, 1)},
	{"priority", syscall.EINVAL, spoil16(recEvtchn, 8+4, 1|16<<8)},
	{"last priority", syscall.EINVAL, spoil16(recEvtchn, 8+10, 16)},
	{"pending 2", syscall.EINVAL, spoil16(recEvtchn, 8+10, 7|2<<8)},
	{"status closed", syscall.EINVAL, spoil16(recEvtchn, 8+4, abi.EvtchnStatClosed|7<<8)},
	{"status pirq", syscall.EINVAL, spoil16(recEvtchn, 8+4, abi.EvtchnStatPIRQ|7<<8)},
	{"peer DOMID_SELF", syscall.EINVAL, spoil32(recEvtchn, 8+12, uint32(abi.DomIDSelf))},
	{"peer beyond 16 bits", syscall.EINVAL, spoil32(recEvtchn, 8+12, 1<<16)},
	{"virq 99", syscall.EINVAL, func(r [][]byte) [][]byte {
		return spoil32(recEvtchn, 8+12, 99)(spoil16(recEvtchn, 8+4, abi.EvtchnStatVIRQ|7<<8)(r))
	}},
	{"port that is something else", syscall.EEXIST, spoil16(recEvtchn, 8+4, abi.EvtchnStatIPI|7<<8)},
	{"port of another peer", syscall.EEXIST, spoil32(recEvtchn, 8+12, 77)},
}

func gfnBytes(gfns ...uint64) []byte {
	var b []byte
	for _, g := range gfns {
		b = binary.LittleEndian.AppendUint64(b, g)
	}
	return b
}

// spoil16 and so on change a field of the first record of a type; off counts
// from its header.
func spoil16(typ uint16, off int, v uint16) func([][]byte) [][]byte {
	return spoilAt(typ, func(b []byte) { binary.LittleEndian.PutUint16(b[off:], v) })
}

func spoil32(typ uint16, off int, v uint32) func([][]byte) [][]byte {
	return spoilAt(typ, func(b []byte) { binary.LittleEndian.PutUint32(b[off:], v) })
}

func spoil64(typ uint16, off int, v uint64) func([][]byte) [][]byte {
	return spoilAt(typ, func(b []byte) { binary.LittleEndian.PutUint64(b[off:], v) })
}

func spoilAt(typ uint16, f func([]byte)) func([][]byte) [][]byte {
	return func(r [][]byte) [][]byte {
		i := find(r, typ)
		r[i] = slices.Clone(r[i])
		f(r[i])
		return r
	}
}

var recordCases = []testCase{
	{"malformed-records", func(t *try) {
		g := t.guest(guestSpec{})
		good := t.stateOf(g).Encode()
		late := 0
		for _, bad := range badRecords {
			t.want("enable", g.enable(secondary, 0, 0), 0)
			b := slices.Concat(bad.spoil(split(good))...)
			t.want(bad.name, t.records(g, b), bad.want)
			t.want(bad.name+": again", t.records(g, good), syscall.EBUSY)
			t.want(bad.name+": resume", g.op(opResume, 0), syscall.EINVAL)
			// One that has failed half way is of no use any more.
			if errno := g.disable(); errno == syscall.EBUSY {
				late++
				_, err := xl("destroy", g.name)
				t.must(err)
				g = t.guest(guestSpec{})
			} else {
				t.want(bad.name+": disable", errno, 0)
			}
		}
		if late < 5 || late > 10 {
			t.fail("%d of the malformed records were noticed only when half was done", late)
		}
		t.want("enable", g.enable(secondary, 0, 0), 0)
		t.want("good ones", t.records(g, good), 0)
	}},
	{"truncated-records", func(t *try) {
		g := t.guest(guestSpec{})
		good := t.stateOf(g).Encode()
		for n := 1; n < len(good); n++ {
			t.want("enable", g.enable(secondary, 0, 0), 0)
			if got := t.records(g, good[:n]); got != syscall.EINVAL {
				t.fail("%d of %d bytes: got %s, want %s", n, len(good), answer(got), answer(syscall.EINVAL))
			}
			t.want("disable", g.disable(), 0)
		}
	}},
}
