// SPDX-License-Identifier: Apache-2.0

package ether

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

var broadcast = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

func frame(dst, src MAC, payload string) []byte {
	f := append(append([]byte{}, dst[:]...), src[:]...)
	return append(append(f, 0x88, 0xb5), payload...)
}

// inbox receives in the background what a port gets.
func inbox(p *Port) <-chan string {
	c := make(chan string, 100)
	go func() {
		for {
			f, err := p.Receive()
			if err != nil {
				close(c)
				return
			}
			c <- string(f[14:])
		}
	}()
	return c
}

func expect(t *testing.T, c <-chan string, want ...string) {
	t.Helper()
	synctest.Wait()
	for _, w := range want {
		select {
		case got := <-c:
			if got != w {
				t.Errorf("received %q, want %q", got, w)
			}
		default:
			t.Errorf("received nothing, want %q", w)
		}
	}
	select {
	case got, ok := <-c:
		if ok {
			t.Errorf("received %q, want nothing", got)
		}
	default:
	}
}

func TestLearnsAndForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		a, b, c := n.Join("a"), n.Join("b"), n.Join("c")
		ia, ib, ic := inbox(a), inbox(b), inbox(c)
		ma, mb := MAC{2, 1}, MAC{2, 2}

		a.Send(frame(broadcast, ma, "who is b"))
		expect(t, ib, "who is b")
		expect(t, ic, "who is b")
		expect(t, ia)

		b.Send(frame(ma, mb, "me"))
		expect(t, ia, "me")
		expect(t, ic)

		// The guest that owned mb moves from b to c and announces itself.
		c.Send(frame(broadcast, mb, "moved"))
		expect(t, ia, "moved")
		expect(t, ib, "moved")
		a.Send(frame(mb, ma, "still there?"))
		expect(t, ic, "still there?")
		expect(t, ib)

		// A port that is gone is not a place frames are sent to for ever.
		c.Unplug()
		a.Send(frame(mb, ma, "anybody?"))
		expect(t, ib, "anybody?")
		a.Unplug()
		b.Unplug()
	})
}

func TestPartitionDelayAndLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		a, b := n.Join("a"), n.Join("b")
		ia, ib := inbox(a), inbox(b)
		ma, mb := MAC{2, 1}, MAC{2, 2}

		n.Partition("a", "b")
		a.Send(frame(broadcast, ma, "1"))
		b.Send(frame(broadcast, mb, "2"))
		expect(t, ib)
		expect(t, ia)

		n.Heal()
		n.Impair("a", "b", Impairment{Delay: time.Second})
		a.Send(frame(mb, ma, "3"))
		a.Send(frame(mb, ma, "4"))
		b.Send(frame(ma, mb, "5"))
		expect(t, ia, "5")
		time.Sleep(999 * time.Millisecond)
		expect(t, ib)
		time.Sleep(time.Millisecond)
		expect(t, ib, "3", "4")

		n.Impair("a", "b", Impairment{Loss: 1})
		a.Send(frame(mb, ma, "6"))
		expect(t, ib)
		a.Unplug()
		b.Unplug()
	})
}

func TestStreamFramingAndCapture(t *testing.T) {
	n := New()
	var pcap bytes.Buffer
	stop, err := n.Capture(&pcap)
	if err != nil {
		t.Fatal(err)
	}
	card, plug := net.Pipe()
	n.Plug("a", plug)
	b := n.Join("b")
	f := frame(broadcast, MAC{2, 1}, "hello")
	go card.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(f))), f...))
	got, err := b.Receive()
	if err != nil || !bytes.Equal(got, f) {
		t.Fatalf("received %q, %v; want %q", got, err, f)
	}
	back := frame(MAC{2, 1}, MAC{2, 2}, "hi")
	b.Send(back)
	buf := make([]byte, 4+len(back))
	if _, err := io.ReadFull(card, buf); err != nil || !bytes.Equal(buf[4:], back) {
		t.Fatalf("the card received %q, %v; want %q", buf, err, back)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if want := 24 + 16 + len(f) + 16 + len(back); pcap.Len() != want {
		t.Errorf("capture has %d octets, want %d", pcap.Len(), want)
	}
	if got := pcap.Bytes()[24+16:][:len(f)]; !bytes.Equal(got, f) {
		t.Errorf("first captured frame is %q, want %q", got, f)
	}
	card.Close()
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 'x'})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, in []byte) {
		frame, err := readFrame(bytes.NewReader(in))
		if err == nil && !bytes.Equal(frame, in[4:][:len(frame)]) {
			t.Errorf("%x was read as %x", in, frame)
		}
	})
}
