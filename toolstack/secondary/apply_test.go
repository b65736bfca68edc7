// SPDX-License-Identifier: Apache-2.0

package secondary

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/kemari-ft/kemari/toolstack/guestmem"
	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/foreignmem"
)

// epochOf makes a shell of plain memory, and an epoch of as many pages for it:
// every tenth is zeros, and of others one line has changed.
func epochOf(tb testing.TB, pages int) (*Shell, *stream.Epoch, []byte) {
	tb.Helper()
	must := func(err error) {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
	}
	mem := make([]byte, pages*abi.PageSize)
	s := &Shell{dom: 7, mem: guestmem.FromMapping(0, foreignmem.FromBytes(mem))}
	want := make([]byte, len(mem))
	var out bytes.Buffer
	w := stream.NewWriter(&out)
	shell := stream.Shell{VCPUs: 1, EpochPages: uint32(pages), MemoryPages: uint64(pages), MaxGFN: abi.GFN(pages), JSON: []byte("{}")}
	must(w.Hello(stream.Hello{Role: stream.Primary, ABI: 1, Generation: 1, CPUVendor: "AuthenticAMD", XenVersion: "4.20.0"}))
	must(w.Begin(1, 2, false))
	for gfn := range pages {
		p := want[gfn*abi.PageSize:][:abi.PageSize]
		for i := range p {
			if gfn%10 != 0 {
				p[i] = byte(gfn + i)
			}
		}
		if gfn%10 == 1 {
			line := abi.PageSize - stream.LineSize
			copy(mem[gfn*abi.PageSize:], p[:line])
			set, diff := stream.Diff(nil, bytes.Clone(mem[gfn*abi.PageSize:][:abi.PageSize]), p)
			must(w.Lines(abi.GFN(gfn), set, diff))
			continue
		}
		must(w.Page(abi.GFN(gfn), p))
	}
	must(w.Always(nil))
	must(w.State(make([]byte, 16)))
	must(w.Rings(nil))
	_, err := w.End()
	must(err)
	r := stream.NewReader(&out, stream.Primary, stream.Limits{EpochPages: 8192, MemoryPages: 8192, MaxGFN: 8192}, stream.NewPool())
	_, err = r.Next()
	must(err)
	r.Resume(&shell, 1)
	msg, err := r.Next()
	must(err)
	return s, msg.(*stream.Epoch), want
}

// TestApplyDoesNotAllocate: what is applied is all of the epoch, and costs no
// memory.
func TestApplyDoesNotAllocate(t *testing.T) {
	s, e, want := epochOf(t, 500)
	if n := testing.AllocsPerRun(10, func() {
		if err := s.ApplyEpoch(e); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("applying 500 pages allocates %v times", n)
	}
	for gfn := range 500 {
		if !bytes.Equal(s.mem.Page(abi.GFN(gfn)), want[gfn*abi.PageSize:][:abi.PageSize]) {
			t.Fatalf("gfn %d is not the epoch's", gfn)
		}
	}
}

// TestLinesOfNoPage: where the epoch before has no page there is nothing of which
// lines could have changed.
func TestLinesOfNoPage(t *testing.T) {
	s := &Shell{dom: 7, mem: guestmem.FromMapping(0, foreignmem.FromBytes(make([]byte, abi.PageSize)))}
	if err := s.patch(1, 1, make([]byte, 9)); err == nil {
		t.Error("lines of a page that is not there were taken")
	}
	s.console = 1
	if err := s.patch(1, 1, make([]byte, 9)); err != nil {
		t.Errorf("lines of a page that belongs to xenconsoled: %v", err)
	}
}

// BenchmarkApplyEpoch is to be compared with toolstack/stream's BenchmarkCopy,
// which copies memory of the same size.
func BenchmarkApplyEpoch(b *testing.B) {
	for _, pages := range []int{500, 5000} {
		b.Run(fmt.Sprintf("pages=%d", pages), func(b *testing.B) {
			s, e, want := epochOf(b, pages)
			b.SetBytes(int64(len(want)))
			b.ReportAllocs()
			for b.Loop() {
				if err := s.ApplyEpoch(e); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
