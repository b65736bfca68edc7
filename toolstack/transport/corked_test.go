// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bytes"
	"net"
	"slices"
	"testing"
)

// pieces is a connection that remembers what it was told to write, and how.
type pieces struct {
	net.Conn
	sizes []int
	all   []byte
}

func (p *pieces) Write(b []byte) (int, error) {
	p.sizes, p.all = append(p.sizes, len(b)), append(p.all, b...)
	return len(b), nil
}

// TestCorked: what is gathered is written in few pieces, whole and in order.
func TestCorked(t *testing.T) {
	p := &pieces{}
	c := &corked{Conn: p}
	var want []byte
	write := func(n int) {
		b := bytes.Repeat([]byte{byte(len(want))}, n)
		want = append(want, b...)
		if got, err := c.Write(b); got != n || err != nil {
			t.Fatalf("%d octets: %d, %v", n, got, err)
		}
	}
	write(10) // the handshake waits for nothing
	c.cork()
	for range 40 {
		write(16 << 10)
	}
	write(100)
	if len(p.sizes) != 3 {
		t.Errorf("written so far: %v", p.sizes)
	}
	if err := c.flush(); err != nil {
		t.Fatal(err)
	}
	write(20)
	write(pieceSize + 1)
	if got := []int{10, pieceSize, pieceSize, 8*16<<10 + 100, 20, pieceSize + 1}; !slices.Equal(p.sizes, got) {
		t.Errorf("written in %v, want %v", p.sizes, got)
	}
	if !bytes.Equal(p.all, want) {
		t.Error("something else was written")
	}
}
