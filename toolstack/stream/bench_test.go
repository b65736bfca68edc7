// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"testing"

	"github.com/kemari-ft/kemari/xen/abi"
)

// guest is memory as a primary maps it.
type guest struct {
	mem    []byte
	gfns   []abi.GFN
	always []AlwaysPage
	state  []byte
}

func newGuest(pages int) *guest {
	g := &guest{state: make([]byte, 8192), always: []AlwaysPage{{GFN: 1 << 20, Data: testPage(1)}}}
	for i := range pages {
		g.mem = append(g.mem, testPage(uint64(i))...)
		g.gfns = append(g.gfns, abi.GFN(i))
	}
	return g
}

func (g *guest) send(w *Writer, k uint64) error {
	if err := w.Begin(7, k, false); err != nil {
		return err
	}
	w.Always(g.always)
	for i, gfn := range g.gfns {
		if err := w.Page(gfn, g.mem[i*abi.PageSize:(i+1)*abi.PageSize]); err != nil {
			return err
		}
	}
	w.State(g.state)
	w.Rings(nil)
	_, err := w.End()
	return err
}

// resumed makes a reader that has heard HELLO.
func resumed(r io.Reader, last uint64) (*Reader, error) {
	rd := NewReader(r, Primary, Limits{EpochPages: 8192, MemoryPages: 1 << 20, MaxGFN: 1 << 20}, NewPool())
	_, err := rd.Next()
	s := testShell
	s.EpochPages = 8192
	rd.Resume(&s, last)
	return rd, err
}

var sizes = []int{500, 5000}

func each(b *testing.B, f func(b *testing.B, g *guest)) {
	for _, pages := range sizes {
		b.Run(fmt.Sprintf("pages=%d", pages), func(b *testing.B) {
			g := newGuest(pages)
			b.SetBytes(int64(len(g.mem)))
			b.ReportAllocs()
			f(b, g)
		})
	}
}

// BenchmarkCopy is what everything else is to be measured against.
func BenchmarkCopy(b *testing.B) {
	each(b, func(b *testing.B, g *guest) {
		to := make([]byte, len(g.mem))
		for b.Loop() {
			copy(to, g.mem)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	each(b, func(b *testing.B, g *guest) {
		w := NewWriter(io.Discard)
		for k := uint64(2); b.Loop(); k++ {
			if err := g.send(w, k); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// loop is a stream that repeats one epoch under rising numbers.
type loop struct {
	hello, epoch []byte
	at           int
}

func (l *loop) Read(p []byte) (int, error) {
	if len(l.hello) > 0 {
		n := copy(p, l.hello)
		l.hello = l.hello[n:]
		return n, nil
	}
	n := copy(p, l.epoch[l.at:])
	l.at = (l.at + n) % len(l.epoch)
	return n, nil
}

func BenchmarkDecode(b *testing.B) {
	each(b, func(b *testing.B, g *guest) {
		in := newLoop(b, g)
		r, err := resumed(in, 1)
		for err == nil && b.Loop() {
			var msg any
			if msg, err = r.Next(); err == nil {
				msg.(*Epoch).Release()
				r.last = 1
			}
		}
		if err != nil {
			b.Fatal(err)
		}
	})
}

func newLoop(t testing.TB, g *guest) *loop {
	var out bytes.Buffer
	w := NewWriter(&out)
	if err := w.Hello(testHello); err != nil {
		t.Fatal(err)
	}
	n := out.Len()
	if err := g.send(w, 2); err != nil {
		t.Fatal(err)
	}
	return &loop{hello: out.Bytes()[:n:n], epoch: out.Bytes()[n:]}
}

// BenchmarkApply is the secondary's work after the acknowledgement.
func BenchmarkApply(b *testing.B) {
	each(b, func(b *testing.B, g *guest) {
		r, err := resumed(newLoop(b, g), 1)
		if err != nil {
			b.Fatal(err)
		}
		msg, err := r.Next()
		if err != nil {
			b.Fatal(err)
		}
		e := msg.(*Epoch)
		shell := make([]byte, len(g.mem))
		for b.Loop() {
			for i := range e.Pages() {
				gfn, p := e.Page(i)
				copy(shell[gfn*abi.PageSize:], p)
			}
		}
	})
}

// BenchmarkSocket is a whole commit: encode, send, decode, acknowledge.
func BenchmarkSocket(b *testing.B) {
	for _, network := range []string{"tcp", "unix"} {
		for _, vectored := range []bool{true, false} {
			b.Run(fmt.Sprintf("%s/vectored=%v", network, vectored), func(b *testing.B) {
				each(b, func(b *testing.B, g *guest) {
					near, far := socketPair(b, network)
					w := NewWriter(near)
					w.vectored = vectored
					go func() {
						r, err := resumed(far, 1)
						for err == nil {
							var msg any
							if msg, err = r.Next(); err == nil {
								msg.(*Epoch).Release()
								_, err = far.Write([]byte{1})
							}
						}
					}()
					w.Hello(testHello)
					ack := make([]byte, 1)
					for k := uint64(2); b.Loop(); k++ {
						if err := g.send(w, k); err != nil {
							b.Fatal(err)
						}
						if _, err := io.ReadFull(near, ack); err != nil {
							b.Fatal(err)
						}
					}
				})
			})
		}
	}
}

// BenchmarkRawSocket sends the same memory without a stream.
func BenchmarkRawSocket(b *testing.B) {
	for _, network := range []string{"tcp", "unix"} {
		b.Run(network, func(b *testing.B) {
			each(b, func(b *testing.B, g *guest) {
				near, far := socketPair(b, network)
				go func() {
					to := make([]byte, len(g.mem))
					for {
						if _, err := io.ReadFull(far, to); err != nil {
							return
						}
						far.Write([]byte{1})
					}
				}()
				ack := make([]byte, 1)
				for b.Loop() {
					near.Write(g.mem)
					if _, err := io.ReadFull(near, ack); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

func socketPair(t testing.TB, network string) (near, far net.Conn) {
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial(network, l.Addr().String()); err == nil {
		far, err = l.Accept()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

// TestNoAllocationPerPage: an epoch costs the same few allocations, however
// many pages it has.
func TestNoAllocationPerPage(t *testing.T) {
	for _, network := range []string{"copied", "unix"} {
		per := map[int]float64{}
		for _, pages := range sizes {
			g := newGuest(pages)
			w := NewWriter(io.Discard)
			if network == "unix" {
				near, far := socketPair(t, network)
				go io.Copy(io.Discard, far)
				w = NewWriter(near)
			}
			k := uint64(2)
			per[pages] = testing.AllocsPerRun(5, func() {
				if err := g.send(w, k); err != nil {
					t.Fatal(err)
				}
				k++
			})
		}
		if per[5000] > 30 || per[5000]-per[500] > 18 { // one a PAGES record would be 18 more
			t.Errorf("sending, %s: %v allocations with 500 pages, %v with 5000", network, per[500], per[5000])
		}
	}
	per := map[int]float64{}
	for _, pages := range sizes {
		r, err := resumed(newLoop(t, newGuest(pages)), 1)
		if err != nil {
			t.Fatal(err)
		}
		receive := func() {
			msg, err := r.Next()
			if err != nil {
				t.Fatal(err)
			}
			msg.(*Epoch).Release()
			r.last = 1
		}
		receive() // the pool has two buffers, which grow once each
		per[pages] = testing.AllocsPerRun(5, receive)
	}
	if per[5000] > 5 {
		t.Errorf("receiving: %v allocations with 500 pages, %v with 5000", per[500], per[5000])
	}
}
