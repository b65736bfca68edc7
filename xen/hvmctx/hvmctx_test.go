// SPDX-License-Identifier: Apache-2.0

package hvmctx

import (
	"bytes"
	"errors"
	"testing"

	"github.com/kemari-ft/kemari/xen/abi"
)

func sample() []byte {
	return Build(
		HeaderRecord(Header{Changeset: 0x1234, CPUID: 0x800f12, GTSCkHz: 2_400_000}),
		Record{Type: abi.HVMSaveCPU, Instance: 0, Data: make([]byte, abi.HVMCPUSize)},
		Record{Type: abi.HVMSaveCPU, Instance: 2, Data: make([]byte, abi.HVMCPUSize)},
		Record{Type: abi.HVMSaveLAPIC, Instance: 0, Data: make([]byte, 32)},
	)
}

func TestEdit(t *testing.T) {
	c, err := Parse(sample())
	if err != nil {
		t.Fatal(err)
	}
	if h := c.Header(); h != (Header{Changeset: 0x1234, CPUID: 0x800f12, GTSCkHz: 2_400_000}) {
		t.Errorf("header %+v", h)
	}
	c.SetGTSCkHz(3_000_000)
	cpu, err := c.CPU(2)
	if err != nil {
		t.Fatal(err)
	}
	cpu.SetTSC(0x1122334455667788)

	again, err := Parse(bytes.Clone(c.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if again.Header().GTSCkHz != 3_000_000 {
		t.Error("the frequency was not changed in the bytes")
	}
	cpu, _ = again.CPU(2)
	if cpu.TSC() != 0x1122334455667788 || cpu.RIP() != 0 {
		t.Errorf("TSC %#x RIP %#x", cpu.TSC(), cpu.RIP())
	}
	if other, _ := again.CPU(0); other.TSC() != 0 {
		t.Error("the TSC of another vCPU was changed")
	}
	if v := again.VCPUs(); len(v) != 2 || v[1] != 2 {
		t.Errorf("vCPUs %v", v)
	}
	if _, err := again.CPU(1); err == nil {
		t.Error("an offline vCPU has a CPU record")
	}
	if _, err := again.CPU(0x10002); err == nil {
		t.Error("vCPU 65538 was taken for vCPU 2")
	}
	if r := again.Records(); len(r) != 4 || r[3].TypeName() != "LAPIC" || TypeName(99) != "type 99" {
		t.Errorf("records %v", r)
	}
}

func TestParseRejects(t *testing.T) {
	header := HeaderRecord(Header{})
	badMagic := HeaderRecord(Header{})
	badMagic.Data[0]++
	badVersion := HeaderRecord(Header{})
	badVersion.Data[4]++
	lapic := Record{Type: abi.HVMSaveLAPIC, Data: make([]byte, 32)}
	for name, b := range map[string][]byte{
		"empty":         nil,
		"only END":      Build(),
		"no header":     Build(lapic),
		"header second": Build(lapic, header),
		"two headers":   Build(header, header),
		"short header":  Build(Record{Type: abi.HVMSaveHeaderCode, Data: make([]byte, 8)}),
		"magic":         Build(badMagic),
		"version":       Build(badVersion),
		"duplicate":     Build(header, lapic, lapic),
		"after END":     append(Build(header), 0),
		"two ENDs":      append(Build(header), Build()...),
		"END with data": append(Build(header)[:32], 0, 0, 0, 0, 1, 0, 0, 0, 9),
		"overlong":      append(Build(header)[:32], 5, 0, 0, 0, 0xff, 0xff, 0xff, 0xff),
	} {
		if _, err := Parse(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b := sample()
	for i := range b {
		if _, err := Parse(b[:i]); err == nil {
			t.Fatalf("the first %d bytes were accepted", i)
		}
	}
}

func TestShortCPURecord(t *testing.T) {
	c, err := Parse(Build(HeaderRecord(Header{}), Record{Type: abi.HVMSaveCPU, Data: make([]byte, 1000)}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.CPU(0); !errors.Is(err, ErrMalformed) {
		t.Errorf("a CPU record of another Xen was accepted: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte{})
	f.Add(sample())
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Parse(bytes.Clone(b))
		if err != nil {
			return
		}
		if again := Build(c.Records()...); !bytes.Equal(again, b) {
			t.Fatalf("rebuilt %x, want %x", again, b)
		}
		c.SetGTSCkHz(c.Header().GTSCkHz)
		for _, v := range c.VCPUs() {
			if cpu, err := c.CPU(v); err == nil {
				cpu.SetTSC(cpu.TSC())
			}
		}
		if !bytes.Equal(c.Bytes(), b) {
			t.Fatal("edits that change nothing changed something")
		}
	})
}
