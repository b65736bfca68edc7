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

// someOf are words of the lines of a set, as they are in page.
func someOf(set LineSet, page []byte, words byte) []byte {
	changed := bytes.Clone(page)
	set.each(func(off int) {
		for i := range LineSize / wordSize {
			changed[off+i*wordSize] ^= words >> i & 1
		}
	})
	_, data := Diff(nil, changed, page)
	return data
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
		must(w.Lines(gfn, l.Set, []byte(l.Data)))
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
				c.Lines[gfn] = linesOf{set, string(someOf(set, testPage(seed+g), byte(seed)|1))}
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
				p.Data = someOf(p.Lines, testPage(seed), byte(seed)|2)
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
	oneWord := make([]byte, 1+wordSize)
	oneWord[0] = 1
	for name, err := range map[string]error{
		"state outside of an epoch": w.State(nil),
		"state too long":            errors.Join(w.Begin(7, 2, false), w.State(make([]byte, MaxState+1))),
		"short page":                w.Page(1, make([]byte, 100)),
		"second epoch":              w.Begin(7, 3, false),
		"no lines":                  w.Lines(1, 0, nil),
		"too many lines":            w.Lines(1, 1<<33-1, bytes.Repeat(oneWord, 33)),
		"line without a word":       w.Lines(1, 1, []byte{0}),
		"a word too many":           w.Lines(1, 1, append(oneWord, oneWord...)),
		"a word too few":            w.Lines(1, 3, oneWord),
		"half a word":               w.Lines(1, 1, oneWord[:5]),
		"lines of a full epoch":     errors.Join(full.Begin(7, 1, true), full.Lines(1, 1, oneWord)),
		"always-sent pages twice":   w.Always([]AlwaysPage{{GFN: 4}, {GFN: 4}}),
		"discard inside an epoch":   w.Discard(7),
		"no reason":                 NewWriter(&out).Refuse(Refuse{}),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestDiff: the copy is made what the page is, and so is another one with what Diff
// returns, which holds no word that was the same.
func TestDiff(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		was := testPage(rapid.Uint64().Draw(t, "seed"))
		page := bytes.Clone(was)
		words := rapid.SliceOfNDistinct(rapid.IntRange(0, abi.PageSize/wordSize-1), 0, 100, rapid.ID).Draw(t, "words")
		lines := map[int]bool{}
		for _, n := range words {
			page[n*wordSize+n%wordSize]++
			lines[n*wordSize/LineSize] = true
		}
		copied := bytes.Clone(was)
		before := []byte("before")
		set, data := Diff(before, copied, page)
		if !bytes.Equal(copied, page) {
			t.Fatal("the copy is not what the page is")
		}
		if set.Len() != len(lines) {
			t.Fatalf("%d lines, %d have changed", set.Len(), len(lines))
		}
		for n := range lines {
			if set>>n&1 == 0 {
				t.Fatalf("line %d has changed and is not in %#x", n, uint64(set))
			}
		}
		if set.Len() > MaxLines {
			return
		}
		data = data[len(before):]
		if n := len(lines) + len(words)*wordSize; len(data) != n {
			t.Fatalf("%d octets for %d words in %d lines, want %d", len(data), len(words), len(lines), n)
		}
		set.Patch(was, data)
		if !bytes.Equal(was, page) {
			t.Fatal("patched is not what the page is")
		}
	})
}

// TestLongestLines: a record with as many pages, lines and words as it may have.
func TestLongestLines(t *testing.T) {
	var out bytes.Buffer
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	w := NewWriter(&out)
	must(w.Hello(testHello))
	must(w.Begin(testHello.Generation, 2, false))
	must(w.Always(nil))
	const half = LineSet(1<<MaxLines - 1)
	for gfn := range abi.GFN(MaxBatch) {
		must(w.Lines(gfn, half, someOf(half, testPage(uint64(gfn)), 0xff)))
	}
	must(w.State(nil))
	must(w.Rings(nil))
	_, err := w.End()
	must(err)
	r := NewReader(&out, Primary, Limits{EpochPages: MaxBatch, MemoryPages: MaxBatch, MaxGFN: MaxBatch}, NewPool())
	_, err = r.Next()
	must(err)
	r.Resume(&Shell{EpochPages: MaxBatch, MemoryPages: MaxBatch, MaxGFN: MaxBatch}, 1)
	msg, err := r.Next()
	must(err)
	e := msg.(*Epoch)
	if e.Patches() != MaxBatch {
		t.Errorf("lines of %d pages came, %d were sent", e.Patches(), MaxBatch)
	}
	_, set, data := e.Lines(MaxBatch - 1)
	page := make([]byte, abi.PageSize)
	set.Patch(page, data)
	if want := testPage(MaxBatch - 1); !bytes.Equal(page[:MaxLines*LineSize], want[:MaxLines*LineSize]) {
		t.Error("the last page's lines are others than those sent")
	}
}
