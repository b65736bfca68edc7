// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"io"
	"math/bits"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/xen/abi"
	"pgregory.net/rapid"
)

func page(seed byte) []byte { return bytes.Repeat([]byte{seed}, abi.PageSize) }

// prefix is HELLO and SHELL.
func prefix(t testing.TB, w *stream.Writer) {
	err := errors.Join(
		w.Hello(stream.Hello{Role: stream.Primary, ABI: 1, Generation: 7, DomID: 12, TSCkHz: 2893437, CPUVendor: "AuthenticAMD", XenVersion: "4.20.0"}),
		w.Shell(stream.Shell{VCPUs: 2, EpochPages: 512, MemoryPages: 32768, MaxGFN: 0xfffff, JSON: []byte("{}")}))
	if err != nil {
		t.Fatal(err)
	}
}

func epochs(t testing.TB, w *stream.Writer, n int) {
	for k := uint64(1); k <= uint64(n); k++ {
		store := stream.AlwaysPage{Kind: stream.AlwaysStore, GFN: 0xfeffe}
		if k == 1 {
			store.Data = page(9)
		} else if k == 2 {
			store.Lines, store.Data = 1<<5|1, append(word(0x80), word(3)...)
		}
		err := errors.Join(w.Begin(7, k, k == 1), w.Always([]stream.AlwaysPage{store}))
		for i := range 3 {
			err = errors.Join(err, w.Page(abi.GFN(i), page(byte(k))), w.Page(abi.GFN(100+i), page(0)), w.Hole(abi.GFN(200+i)))
		}
		if k > 1 {
			err = errors.Join(err, w.Lines(300, 1<<63|1, append(word(0xff), word(1)...)), w.Lines(301, 2, word(0x11)))
		}
		err = errors.Join(err, w.Heartbeat(7, k), w.State([]byte("some state")),
			w.Rings([]stream.Ring{{Class: stream.RingVBD, DevID: 51712, RspProd: 4, ReqProd: 6}}), w.Xenstore([]byte("x")))
		if _, e := w.End(); e != nil || err != nil {
			t.Fatal(errors.Join(err, e))
		}
	}
}

// word is a line of which some words have changed.
func word(words byte) []byte {
	return append([]byte{words}, make([]byte, 8*bits.OnesCount8(words))...)
}

func recorded(t testing.TB) (all []byte, head int) {
	var b bytes.Buffer
	w := stream.NewWriter(&b)
	prefix(t, w)
	head = b.Len()
	epochs(t, w, 3)
	if err := w.LetGo(7, 3); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), head
}

func TestAcceptsEncoder(t *testing.T) {
	all, _ := recorded(t)
	file := filepath.Join(t.TempDir(), "stream")
	if err := os.WriteFile(file, all, 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := run([]string{file}, nil, &out); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"primary: generation 7, epoch 0, domid 12, interface version 1, Xen 4.20.0 on AuthenticAMD at 2893437 kHz\n",
		"guest: 2 vCPUs, 32768 pages up to gfn 0xfffff, at most 512 an epoch, described in 2 octets\n",
		"epoch 3 of generation 7: 3 pages, lines of 2, 3 zeros, 3 holes, 0 of 1 always-sent pages, 1 rings, 10 octets of state,",
		"stream is correct: 35 records, 3 epochs,",
	} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("%q is missing in\n%s", line, out.String())
		}
	}
}

func TestOtherDirection(t *testing.T) {
	var b bytes.Buffer
	w := stream.NewWriter(&b)
	err := errors.Join(w.Hello(stream.Hello{Role: stream.Secondary, Generation: 7, Epoch: 3}),
		w.Ack(7, 4), w.Heartbeat(7, 1), w.Ack(7, 5), w.Discarded(7), w.Refuse(stream.Refuse{TakenOver: true, Reasons: []string{"enough of it"}}))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := verify(&b, &out); err != nil || !strings.Contains(out.String(), "refused: enough of it\n") {
		t.Fatal(err, out.String())
	}
}

// TestAgreesWithCodec: whatever is done to a stream, the two implementations
// of docs/stream.md say the same of it.
func TestAgreesWithCodec(t *testing.T) {
	all, head := recorded(t)
	accepted, refused := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		bad := bytes.Clone(all)
		pos := func(name string) int { return rapid.IntRange(head, len(all)).Draw(rt, name) }
		switch rapid.IntRange(0, 3).Draw(rt, "how") {
		case 0:
			bad = bad[:pos("cut")]
		case 1:
			bad[pos("at")-1] ^= byte(rapid.IntRange(1, 255).Draw(rt, "bits"))
		case 2:
			a, b := pos("from"), pos("to")
			bad = append(bytes.Clone(all[:min(a, b)]), all[max(a, b):]...)
		case 3: // whole records, by their headers
			cuts := records(all, head)
			i, j := rapid.IntRange(0, len(cuts)-1).Draw(rt, "i"), rapid.IntRange(0, len(cuts)-1).Draw(rt, "j")
			i, j = min(i, j), max(i, j)
			bad = append(append(bytes.Clone(all[:cuts[i]]), all[cuts[j]:]...), all[cuts[i]:cuts[j]]...)
			if rapid.Bool().Draw(rt, "drop") {
				bad = append(bytes.Clone(all[:cuts[i]]), all[cuts[j]:]...)
			}
		}
		mine, theirs := verify(bytes.NewReader(bad), io.Discard), codec(bad)
		if (mine == nil) != (theirs == nil) {
			rt.Fatalf("streamverify says %v, package stream says %v", mine, theirs)
		}
		if mine == nil {
			accepted++
		} else {
			refused++
		}
	})
	t.Logf("%d streams accepted, %d refused", accepted, refused)
}

func records(b []byte, at int) []int {
	cuts := []int{at}
	for at < len(b) {
		at += 8 + int(u32(b, at+4)+7)/8*8
		cuts = append(cuts, at)
	}
	return cuts
}

func codec(b []byte) error {
	r := stream.NewReader(bytes.NewReader(b), stream.Primary,
		stream.Limits{EpochPages: 512, MemoryPages: 1 << 20, MaxGFN: 1 << 24}, stream.NewPool())
	for {
		msg, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if e, ok := msg.(*stream.Epoch); ok {
			e.Release()
		}
	}
}

func FuzzVerify(f *testing.F) {
	all, head := recorded(f)
	f.Add(all[:head])
	f.Add(all)
	f.Fuzz(func(t *testing.T, b []byte) { verify(bytes.NewReader(b), io.Discard) })
}
