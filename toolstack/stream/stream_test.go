// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/kemari-ft/kemari/xen/abi"
	"pgregory.net/rapid"
)

var testLimits = Limits{EpochPages: 4096, MemoryPages: 1 << 20, MaxGFN: 1 << 20}

var testShell = Shell{VCPUs: 2, EpochPages: 1024, MemoryPages: 32768, MaxGFN: 0xfffff, JSON: []byte(`{"c_info":{}}`)}

var testHello = Hello{
	Role: Primary, ABI: 1, Generation: 7, Guest: [16]byte{1, 2, 3}, Host: [16]byte{4, 5, 6},
	DomID: 12, TSCkHz: 2893437, CPUVendor: "AuthenticAMD", XenVersion: "4.20.0",
}

// content is an epoch as a test sees it, without pools and chunks.
type content struct {
	Generation, Number uint64
	Full               bool
	Pages              map[abi.GFN]string
	Lines              map[abi.GFN]linesOf
	Zeros, Holes       []abi.GFN
	Always             []AlwaysPage
	State              string
	Rings              []Ring
	Xenstore           string
	HasXenstore        bool
}

// linesOf is what has changed of a page.
type linesOf struct {
	Set  LineSet
	Data string
}

func (c *content) write(t testing.TB, w *Writer) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(w.Begin(c.Generation, c.Number, c.Full))
	must(w.Always(c.Always))
	for gfn, p := range c.Pages {
		must(w.Page(gfn, []byte(p)))
	}
	for gfn, l := range c.Lines {
		page := make([]byte, abi.PageSize)
		l.Set.Patch(page, []byte(l.Data))
		must(w.Lines(gfn, l.Set, page))
	}
	for _, gfn := range c.Zeros {
		must(w.Page(gfn, make([]byte, abi.PageSize)))
	}
	for _, gfn := range c.Holes {
		must(w.Hole(gfn))
	}
	must(w.State([]byte(c.State)))
	must(w.Rings(c.Rings))
	if c.HasXenstore {
		must(w.Xenstore([]byte(c.Xenstore)))
	}
	sent, err := w.End()
	must(err)
	if sent.Pages != uint64(len(c.Pages)) || sent.Lines != uint64(len(c.Lines)) || sent.Zeros != uint64(len(c.Zeros)) || sent.Holes != uint64(len(c.Holes)) {
		t.Fatalf("End says %+v", sent)
	}
}

// readAll reads a stream to its end and returns its epochs, with the batches
// of full ones put together.
func readAll(in []byte, prepare func(*Reader)) (epochs []content, others []any, err error) {
	r := NewReader(bytes.NewReader(in), Primary, testLimits, NewPool())
	batches := content{Pages: map[abi.GFN]string{}}
	for {
		msg, err := r.Next()
		if err != nil {
			return epochs, others, err
		}
		switch m := msg.(type) {
		case *Hello:
			if prepare != nil {
				prepare(r)
			}
			others = append(others, m)
		case *Batch:
			for i, gfn := range m.GFNs {
				batches.Pages[gfn] = string(m.Data[i*abi.PageSize : (i+1)*abi.PageSize])
			}
			batches.Zeros = append(batches.Zeros, m.Zeros...)
			batches.Holes = append(batches.Holes, m.Holes...)
		case *Epoch:
			epochs = append(epochs, contentOf(m, &batches))
			m.Release()
		default:
			others = append(others, m)
		}
	}
}

func contentOf(e *Epoch, batches *content) content {
	c := content{
		Generation: e.Generation, Number: e.Number, Full: e.Full, Pages: map[abi.GFN]string{}, Lines: map[abi.GFN]linesOf{},
		Zeros: append([]abi.GFN(nil), e.Zeros...), Holes: append([]abi.GFN(nil), e.Holes...),
		State: string(e.State), Rings: append([]Ring(nil), e.Rings...),
		Xenstore: string(e.Xenstore), HasXenstore: e.Xenstore != nil,
	}
	for i := range e.Pages() {
		gfn, p := e.Page(i)
		c.Pages[gfn] = string(p)
	}
	for i := range e.Patches() {
		gfn, set, data := e.Lines(i)
		c.Lines[gfn] = linesOf{set, string(data)}
	}
	for _, p := range e.Always {
		p.Data = bytes.Clone(p.Data)
		c.Always = append(c.Always, p)
	}
	if e.Full {
		c.Pages, c.Zeros, c.Holes = batches.Pages, batches.Zeros, batches.Holes
	}
	return c
}

// genEpochs makes up a guest's life.
func genEpochs(t *rapid.T, most, pages int) []content {
	n := rapid.IntRange(1, most).Draw(t, "epochs")
	var epochs []content
	for k := range n {
		gfns := rapid.SliceOfNDistinct(rapid.Uint64Range(0, uint64(testShell.MaxGFN)), 0, pages, rapid.ID[uint64]).Draw(t, "gfns")
		c := content{Generation: testHello.Generation, Number: uint64(k) + 1, Full: k == 0, Pages: map[abi.GFN]string{}, Lines: map[abi.GFN]linesOf{}}
		seed := rapid.Uint64().Draw(t, "seed")
		for i, g := range gfns {
			switch gfn := abi.GFN(g); i % 9 {
			case 7, 8:
				if c.Full {
					continue
				}
				set := LineSet(uint32(seed)>>(i%32)|1<<(i%32)) << (i % 33)
				c.Lines[gfn] = linesOf{set, string(testPage(seed + g)[:set.Len()*LineSize])}
			case 5:
				c.Zeros = append(c.Zeros, gfn)
			case 6:
				c.Holes = append(c.Holes, gfn)
			default:
				c.Pages[gfn] = string(testPage(seed + g))
			}
		}
		for i := range rapid.IntRange(0, 5).Draw(t, "always") {
			p := AlwaysPage{Kind: AlwaysGrant, Index: uint32(i), GFN: testShell.MaxGFN + 1 + abi.GFN(i)}
			switch {
			case c.Full || i%3 == 0:
				p.Data = testPage(seed)
			case i%3 == 1:
				p.Lines = LineSet(uint32(seed) | 1)
				p.Data = testPage(seed)[:p.dataLen()]
			}
			c.Always = append(c.Always, p)
		}
		c.State = string(rapid.SliceOfN(rapid.Byte(), 0, 50).Draw(t, "state"))
		for i := range rapid.IntRange(0, 3).Draw(t, "rings") {
			c.Rings = append(c.Rings, Ring{Class: RingVBD, DevID: uint32(51712 + i), RspProd: 5, ReqProd: uint32(9 + i)})
		}
		if c.HasXenstore = c.Full || rapid.Bool().Draw(t, "store changed"); c.HasXenstore {
			c.Xenstore = rapid.StringN(0, 20, -1).Draw(t, "xenstore")
		}
		epochs = append(epochs, c)
	}
	return epochs
}

func testPage(seed uint64) []byte {
	p := make([]byte, abi.PageSize)
	for i := 0; i < len(p); i += 8 {
		seed = seed*6364136223846793005 + 1442695040888963407
		le.PutUint64(p[i:], seed|1)
	}
	return p
}

func encode(t testing.TB, epochs []content) []byte {
	var out bytes.Buffer
	w := NewWriter(&out)
	if err := errors.Join(w.Hello(testHello), w.Shell(testShell)); err != nil {
		t.Fatal(err)
	}
	for i := range epochs {
		if err := w.Heartbeat(7, uint64(i)); err != nil {
			t.Fatal(err)
		}
		epochs[i].write(t, w)
	}
	return out.Bytes()
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		want := genEpochs(rt, 3, 700)
		got, others, err := readAll(encode(t, want), nil)
		if err != io.EOF {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			rt.Fatalf("epochs differ:\n%s", diff)
		}
		if diff := cmp.Diff([]any{&testHello, &testShell}, others[:2]); diff != "" {
			rt.Fatalf("HELLO and SHELL differ:\n%s", diff)
		}
	})
}

// TestI7OnlyWholeEpochs damages streams in every way a wire or a peer can and
// asserts that each epoch that comes out is one that went in, in order and
// without a gap.
func TestI7OnlyWholeEpochs(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		want := genEpochs(rt, 3, 30)
		in := encode(t, want)
		pos := func(name string) int { return rapid.IntRange(0, len(in)-1).Draw(rt, name) }
		how := rapid.SampledFrom([]string{"cut", "flip", "remove", "repeat", "swap epochs", "replay"}).Draw(rt, "how")
		bad := bytes.Clone(in)
		switch how {
		case "cut":
			bad = bad[:pos("at")]
		case "flip":
			bad[pos("at")] ^= 1 << rapid.IntRange(0, 7).Draw(rt, "bit")
		case "remove":
			a, b := pos("from"), pos("to")
			bad = append(bytes.Clone(in[:min(a, b)]), in[max(a, b):]...)
		case "repeat":
			a, b := pos("from"), pos("to")
			bad = append(bytes.Clone(in[:max(a, b)]), in[min(a, b):]...)
		case "swap epochs":
			other := append([]content(nil), want...)
			other[0], other[len(other)-1] = other[len(other)-1], other[0]
			bad = encode(t, other)
		case "replay":
			bad = encode(t, append(append([]content(nil), want...), want[len(want)-1]))
		}
		got, _, err := readAll(bad, nil)
		if err == nil {
			rt.Fatal("stream without an end")
		}
		for i := range got {
			if i >= len(want) {
				rt.Fatalf("%s: %d epochs came out, %d went in", how, len(got), len(want))
			}
			if diff := cmp.Diff(want[i], got[i]); diff != "" {
				rt.Fatalf("%s: epoch %d is not the one that went in:\n%s", how, i+1, diff)
			}
		}
	})
}

// TestHeartbeats: they come from another goroutine, in the middle of epochs.
func TestHeartbeats(t *testing.T) {
	near, far := socketPair(t, "unix")
	w := NewWriter(near)
	if err := w.Hello(testHello); err != nil {
		t.Fatal(err)
	}
	const epochs = 50
	go func() {
		g := newGuest(600)
		for k := uint64(2); k < 2+epochs; k++ {
			if err := g.send(w, k); err != nil {
				t.Error(err)
			}
		}
		near.Close()
	}()
	go func() {
		for n := uint64(1); w.Heartbeat(7, n) == nil; n++ {
		}
	}()
	r, err := resumed(far, 1)
	beats, got := 0, 0
	for err == nil {
		var msg any
		msg, err = r.Next()
		switch m := msg.(type) {
		case Heartbeat:
			beats++
		case *Epoch:
			got++
			m.Release()
		}
	}
	// The connection was closed under the heartbeats: one may be torn.
	if got != epochs || beats == 0 || err != io.EOF && !errors.Is(err, ErrTorn) {
		t.Errorf("%d epochs, %d heartbeats, then %v", got, beats, err)
	}
}

// TestWriterMisuse: what a writer is asked for wrongly is not sent.
func TestWriterMisuse(t *testing.T) {
	var out bytes.Buffer
	w, full := NewWriter(&out), NewWriter(&out)
	for name, err := range map[string]error{
		"state outside of an epoch": w.State(nil),
		"state too long":            errors.Join(w.Begin(7, 2, false), w.State(make([]byte, MaxState+1))),
		"short page":                w.Page(1, make([]byte, 100)),
		"second epoch":              w.Begin(7, 3, false),
		"lines of a short page":     w.Lines(1, 1, make([]byte, 100)),
		"no lines":                  w.Lines(1, 0, make([]byte, abi.PageSize)),
		"lines of a full epoch":     errors.Join(full.Begin(7, 1, true), full.Lines(1, 1, make([]byte, abi.PageSize))),
		"always-sent pages twice":   w.Always([]AlwaysPage{{GFN: 4}, {GFN: 4}}),
		"discard inside an epoch":   w.Discard(7),
		"no reason":                 NewWriter(&out).Refuse(Refuse{}),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
