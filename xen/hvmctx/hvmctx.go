// SPDX-License-Identifier: Apache-2.0

// Package hvmctx reads and edits the HVM context: the state of a domain's vCPUs
// and emulated devices as XEN_DOMCTL_gethvmcontext saves it and
// XEN_DOMCTL_sethvmcontext loads it. See xen/include/public/hvm/save.h and
// arch-x86/hvm/save.h.
//
// A context is a sequence of records, each a descriptor and its data, without
// padding. The first is HEADER, the last END with no data. The package is pure
// and takes contexts from untrusted peers.
package hvmctx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"github.com/kemari-ft/kemari/xen/abi"
)

// ErrMalformed is matched by the errors about contexts that do not parse.
var ErrMalformed = errors.New("malformed HVM context")

const (
	descLen   = 8  // struct hvm_save_descriptor
	headerLen = 24 // struct hvm_save_header
	offGTSC   = 20 // hvm_save_header.gtsc_khz
)

// Record is one record of a context.
type Record struct {
	Type     uint16 // abi.HVMSave*
	Instance uint16 // the vCPU for most types
	Data     []byte // part of the context's memory
}

// TypeName names the record's type as save.h does.
func (r Record) TypeName() string { return TypeName(r.Type) }

// Context is a parsed context. It owns the bytes given to Parse.
type Context struct {
	b       []byte
	records []Record // without END
}

// Parse checks the structure of b: the header's magic and version, that the
// records fill b exactly, and that no record comes twice. What the records
// mean is for Xen to judge.
func Parse(b []byte) (*Context, error) {
	c := &Context{b: b}
	seen := make(map[[2]uint16]bool)
	for off := 0; ; {
		if len(b)-off < descLen {
			return nil, malformed("%d bytes end without an END record", len(b))
		}
		typ := binary.LittleEndian.Uint16(b[off:])
		inst := binary.LittleEndian.Uint16(b[off+2:])
		n := binary.LittleEndian.Uint32(b[off+4:])
		off += descLen
		if uint64(n) > uint64(len(b)-off) {
			return nil, malformed("%s record at %d claims %d bytes, %d are left", TypeName(typ), off-descLen, n, len(b)-off)
		}
		if typ == abi.HVMSaveEnd {
			if inst != 0 || n != 0 || off != len(b) {
				return nil, malformed("END record at %d of %d bytes, instance %d, length %d", off-descLen, len(b), inst, n)
			}
			break
		}
		r := Record{Type: typ, Instance: inst, Data: b[off : off+int(n) : off+int(n)]}
		if err := c.checkHeader(r); err != nil {
			return nil, err
		}
		key := [2]uint16{typ, inst}
		if seen[key] {
			return nil, malformed("two %s records of instance %d", r.TypeName(), inst)
		}
		seen[key] = true
		c.records = append(c.records, r)
		off += int(n)
	}
	if len(c.records) == 0 {
		return nil, malformed("no HEADER record")
	}
	return c, nil
}

// checkHeader checks that HEADER is the first record, and only the first.
func (c *Context) checkHeader(r Record) error {
	if len(c.records) > 0 {
		return nil // a second HEADER is a duplicate, or an unknown instance to Xen
	}
	if r.Type != abi.HVMSaveHeaderCode || r.Instance != 0 || len(r.Data) != headerLen {
		return malformed("begins with a %s record of %d bytes", r.TypeName(), len(r.Data))
	}
	magic := binary.LittleEndian.Uint32(r.Data)
	version := binary.LittleEndian.Uint32(r.Data[4:])
	if magic != abi.HVMFileMagic || version != abi.HVMFileVersion {
		return malformed("magic %#x version %d", magic, version)
	}
	return nil
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// Build makes a context of the given records and an END record.
func Build(records ...Record) []byte {
	var b []byte
	for _, r := range records {
		b = appendDesc(b, r.Type, r.Instance, len(r.Data))
		b = append(b, r.Data...)
	}
	return appendDesc(b, abi.HVMSaveEnd, 0, 0)
}

func appendDesc(b []byte, typ, inst uint16, n int) []byte {
	b = binary.LittleEndian.AppendUint16(b, typ)
	b = binary.LittleEndian.AppendUint16(b, inst)
	return binary.LittleEndian.AppendUint32(b, uint32(n))
}

// Bytes is the context as Xen takes it, with all edits.
func (c *Context) Bytes() []byte { return c.b }

// Records returns all records but END, in order.
func (c *Context) Records() []Record { return c.records }

// Find returns the record of a type and instance.
func (c *Context) Find(typ, instance uint16) (Record, bool) {
	for _, r := range c.records {
		if r.Type == typ && r.Instance == instance {
			return r, true
		}
	}
	return Record{}, false
}

// Header is the HEADER record.
type Header struct {
	Changeset uint64 // of the Xen that saved the context
	CPUID     uint32 // CPUID leaf 1 EAX of the machine it was saved on
	GTSCkHz   uint32 // the guest's TSC frequency
}

// HeaderRecord makes a HEADER record, for Build.
func HeaderRecord(h Header) Record {
	b := binary.LittleEndian.AppendUint32(nil, abi.HVMFileMagic)
	b = binary.LittleEndian.AppendUint32(b, abi.HVMFileVersion)
	b = binary.LittleEndian.AppendUint64(b, h.Changeset)
	b = binary.LittleEndian.AppendUint32(b, h.CPUID)
	b = binary.LittleEndian.AppendUint32(b, h.GTSCkHz)
	return Record{Type: abi.HVMSaveHeaderCode, Data: b}
}

// Header returns the HEADER record.
func (c *Context) Header() Header {
	d := c.records[0].Data
	return Header{
		Changeset: binary.LittleEndian.Uint64(d[8:]),
		CPUID:     binary.LittleEndian.Uint32(d[16:]),
		GTSCkHz:   binary.LittleEndian.Uint32(d[offGTSC:]),
	}
}

// SetGTSCkHz sets the TSC frequency which the guest was promised. Xen takes it for
// the domain's when it loads the context (arch_hvm_load()).
func (c *Context) SetGTSCkHz(khz uint32) {
	binary.LittleEndian.PutUint32(c.records[0].Data[offGTSC:], khz)
}

// CPU gives access to the CPU record of one vCPU. A vCPU that is offline has
// none (hvm_save_cpu_ctxt()).
type CPU struct{ d []byte }

// CPU returns the CPU record of a vCPU.
func (c *Context) CPU(vcpu abi.VCPU) (CPU, error) {
	if vcpu > 0xffff {
		return CPU{}, fmt.Errorf("HVM context: no vCPU %d", vcpu)
	}
	r, ok := c.Find(abi.HVMSaveCPU, uint16(vcpu))
	if !ok {
		return CPU{}, fmt.Errorf("HVM context: no CPU record of vCPU %d", vcpu)
	}
	if len(r.Data) != abi.HVMCPUSize {
		return CPU{}, malformed("CPU record of vCPU %d has %d bytes, not %d", vcpu, len(r.Data), abi.HVMCPUSize)
	}
	return CPU{r.Data}, nil
}

// TSC is what rdtsc would have returned at the instant of the save.
func (c CPU) TSC() uint64 { return binary.LittleEndian.Uint64(c.d[abi.HVMCPUOffTSC:]) }

// SetTSC changes it.
func (c CPU) SetTSC(v uint64) { binary.LittleEndian.PutUint64(c.d[abi.HVMCPUOffTSC:], v) }

// RIP is the instruction pointer.
func (c CPU) RIP() uint64 { return binary.LittleEndian.Uint64(c.d[abi.HVMCPUOffRIP:]) }

// VCPUs lists the vCPUs that have a CPU record: those which are online.
func (c *Context) VCPUs() []abi.VCPU {
	var v []abi.VCPU
	for _, r := range c.records {
		if r.Type == abi.HVMSaveCPU {
			v = append(v, abi.VCPU(r.Instance))
		}
	}
	return v
}

var typeNames = [...]string{
	abi.HVMSaveEnd:            "END",
	abi.HVMSaveHeaderCode:     "HEADER",
	abi.HVMSaveCPU:            "CPU",
	abi.HVMSavePIC:            "PIC",
	abi.HVMSaveIOAPIC:         "IOAPIC",
	abi.HVMSaveLAPIC:          "LAPIC",
	abi.HVMSaveLAPICRegs:      "LAPIC_REGS",
	abi.HVMSavePCIIRQ:         "PCI_IRQ",
	abi.HVMSaveISAIRQ:         "ISA_IRQ",
	abi.HVMSavePCILink:        "PCI_LINK",
	abi.HVMSavePIT:            "PIT",
	abi.HVMSaveRTC:            "RTC",
	abi.HVMSaveHPET:           "HPET",
	abi.HVMSavePMTimer:        "PMTIMER",
	abi.HVMSaveMTRR:           "MTRR",
	abi.HVMSaveViridianDomain: "VIRIDIAN_DOMAIN",
	abi.HVMSaveCPUXSave:       "CPU_XSAVE",
	abi.HVMSaveViridianVCPU:   "VIRIDIAN_VCPU",
	abi.HVMSaveVMCEVCPU:       "VMCE_VCPU",
	abi.HVMSaveTSCAdjust:      "TSC_ADJUST",
	abi.HVMSaveCPUMSR:         "CPU_MSR",
}

// TypeName names a record type as save.h does.
func TypeName(typ uint16) string {
	if int(typ) < len(typeNames) {
		return typeNames[typ]
	}
	return "type " + strconv.Itoa(int(typ))
}
