// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/kemari-ft/kemari/xen/abi"
)

// TestTranscripts plays the files of testdata/transcripts: what is sent, one
// thing a line, and what a reader makes of it.
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata/transcripts", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			from := Primary
			if d.HasArg("from-secondary") {
				from = Secondary
			}
			var wire bytes.Buffer
			w := NewWriter(&wire)
			for line := range strings.Lines(d.Input) {
				if err := play(w, &wire, from, strings.Fields(line)); err != nil {
					t.Fatalf("%s: %q: %v", d.Pos, line, err)
				}
			}
			var resume uint64
			if d.HasArg("resume") {
				d.ScanArgs(t, "resume", &resume)
			}
			return replay(wire.Bytes(), from, resume)
		})
	})
}

// line is what follows a set of lines, with so many octets in all.
func line(words byte, octets uint64) []byte {
	b := make([]byte, octets)
	if octets > 0 {
		b[0] = words
	}
	return b
}

// play sends what one line says.
func play(w *Writer, wire *bytes.Buffer, from Role, words []string) error {
	arg := func(key string, otherwise uint64) uint64 {
		for _, word := range words[1:] {
			if v, ok := strings.CutPrefix(word, key+"="); ok {
				n, err := strconv.ParseUint(v, 0, 64)
				if err != nil {
					panic(err)
				}
				return n
			}
		}
		return otherwise
	}
	gen := arg("gen", 7)
	switch words[0] {
	case "hello":
		h := testHello
		h.Role, h.Generation, h.Epoch = from, gen, arg("epoch", 0)
		return w.Hello(h)
	case "shell":
		s := testShell
		s.EpochPages = uint32(arg("epoch-pages", 8))
		return w.Shell(s)
	case "begin":
		return w.Begin(gen, arg("epoch", 1), arg("epoch", 1) == 1)
	case "page":
		return w.Page(abi.GFN(arg("gfn", 0x1000)), testPage(arg("seed", 1)))
	case "lines":
		set := LineSet(arg("set", 1))
		return w.Lines(abi.GFN(arg("gfn", 0x1003)), set, someOf(set, testPage(arg("seed", 1)), byte(arg("words", 1))))
	case "zero":
		return w.Page(abi.GFN(arg("gfn", 0x1001)), make([]byte, abi.PageSize))
	case "hole":
		return w.Hole(abi.GFN(arg("gfn", 0x1002)))
	case "always":
		p := AlwaysPage{Kind: AlwaysStore, GFN: abi.GFN(arg("gfn", 0xfeffe))}
		if arg("data", 1) == 1 {
			if p.Data = testPage(9); arg("lines", 0) != 0 {
				p.Lines = LineSet(arg("lines", 0))
				p.Data = someOf(p.Lines, p.Data, 1)
			}
		}
		return w.Always([]AlwaysPage{p})
	case "state":
		return w.State([]byte("state"))
	case "rings":
		return w.Rings([]Ring{{Class: RingVBD, DevID: 51712, RspProd: 10, ReqProd: 12}})
	case "xenstore":
		return w.Xenstore([]byte("nodes"))
	case "finish":
		_, err := w.End()
		return err
	case "epoch":
		k := words[1]
		lines := []string{"begin", "always", "page", "zero", "hole", "state", "rings", "xenstore", "finish"}
		for _, l := range lines {
			if err := play(w, wire, from, append([]string{l, "epoch=" + k}, words[2:]...)); err != nil {
				return err
			}
		}
		return nil
	case "heartbeat":
		return w.Heartbeat(gen, arg("sequence", 1))
	case "ack":
		return w.Ack(gen, arg("epoch", 1))
	case "discard":
		return w.Discard(gen)
	case "discarded":
		return w.Discarded(gen)
	case "end":
		return w.EndGuest(gen, Reason(arg("reason", 1)))
	case "let-go":
		return w.LetGo(gen, arg("epoch", 1))
	case "refuse":
		return w.Refuse(Refuse{Reasons: []string{"domid 12 is taken here", "Xen 4.19.1 here,\n4.20.0 on the peer"}})
	case "raw":
		b := le.AppendUint32(nil, uint32(arg("type", 0)))
		b = le.AppendUint32(b, uint32(arg("length", 0)))
		wire.Write(append(b, make([]byte, arg("octets", 0))...))
		return nil
	case "lines-record": // in an epoch, as no writer makes it
		b := le.AppendUint64(nil, 1)
		b = le.AppendUint64(le.AppendUint64(b, arg("gfn", 0x1003)), arg("set", 1))
		b = append(b, line(byte(arg("words", 1)), arg("octets", 0))...)
		return errors.Join(w.Begin(gen, 42, false), w.blob(TypeLines, b, len(b)))
	case "always-record": // as no writer makes it
		b := le.AppendUint64(nil, 1)
		b = le.AppendUint64(append(b, byte(AlwaysFIFO), 0, alwaysLines, 0, 0, 0, 0, 0), arg("gfn", 0xfeffe))
		b = append(le.AppendUint64(b, arg("set", 1)), line(byte(arg("words", 1)), arg("octets", 0))...)
		return w.blob(TypeAlways, b, len(b))
	case "cut":
		wire.Truncate(wire.Len() - int(arg("octets", 1)))
		return nil
	case "flip": // a bit, so many octets before the end
		wire.Bytes()[wire.Len()-int(arg("before", 1))] ^= 1
		return nil
	}
	return fmt.Errorf("unknown")
}

// replay prints what comes out.
func replay(in []byte, from Role, resume uint64) string {
	var out strings.Builder
	r := NewReader(bytes.NewReader(in), from, testLimits, NewPool())
	for {
		msg, err := r.Next()
		if err != nil {
			kind := "EOF"
			for name, k := range map[string]error{"torn": ErrTorn, "corrupt": ErrCorrupt, "sequence": ErrSequence, "limit": ErrLimit, "unsupported": ErrUnsupported} {
				if errors.Is(err, k) {
					kind = name
				}
			}
			fmt.Fprintf(&out, "%s: %v\n", kind, err)
			return out.String()
		}
		switch m := msg.(type) {
		case *Hello:
			fmt.Fprintf(&out, "HELLO %v, generation %d, epoch %d, %v, %s, Xen %s\n", m.Role, m.Generation, m.Epoch, m.DomID, m.CPUVendor, m.XenVersion)
			if resume != 0 {
				s := testShell
				r.Resume(&s, resume)
			}
		case *Shell:
			fmt.Fprintf(&out, "SHELL %d vCPUs, %d pages to gfn %#x, %d an epoch\n", m.VCPUs, m.MemoryPages, uint64(m.MaxGFN), m.EpochPages)
		case *Batch:
			fmt.Fprintf(&out, "batch of epoch 1: %d pages, %d zeros, %d holes\n", len(m.GFNs), len(m.Zeros), len(m.Holes))
		case *Epoch:
			fmt.Fprintf(&out, "epoch %d of generation %d is whole: %d pages, lines of %d, %d zeros, %d holes, %d always, %d rings\n",
				m.Number, m.Generation, m.Pages(), m.Patches(), len(m.Zeros), len(m.Holes), len(m.Always), len(m.Rings))
			m.Release()
		default:
			fmt.Fprintf(&out, "%s %+v\n", strings.TrimPrefix(strings.TrimPrefix(fmt.Sprintf("%T", m), "*"), "stream."), m)
		}
	}
}
