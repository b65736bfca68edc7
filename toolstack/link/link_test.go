// SPDX-License-Identifier: Apache-2.0

package link

import (
	"errors"
	"io"
	"net"
	"slices"
	"testing"

	"github.com/kemari-ft/kemari/toolstack/stream"
)

// TestRefused: whoever reads the stream of a peer that is refused is told the
// end, and gets no octets out of its middle.
func TestRefused(t *testing.T) {
	here, there := net.Pipe()
	defer there.Close()
	l := New(here)
	go func() {
		for { // the peer's first copy, under way
			if _, err := there.Write(make([]byte, 1000)); err != nil {
				return
			}
		}
	}()
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.Refuse(stream.Refuse{Reasons: []string{"domid 1 is in use"}})
	}()
	if _, err := io.ReadFull(there, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	go io.Copy(io.Discard, there)
	if n, err := l.Read(make([]byte, 100)); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read after Refuse: %d octets, %v", n, err)
	}
	there.Close()
	<-done
}

// TestManyReasons: more than a REFUSE holds are no reason to give none.
func TestManyReasons(t *testing.T) {
	here, there := net.Pipe()
	defer there.Close()
	go New(here).Refuse(stream.Refuse{Reasons: slices.Repeat([]string{"no"}, stream.MaxReasons+1)})
	msg, err := stream.NewReader(there, stream.Secondary, stream.Limits{}, nil).Next()
	if refuse, ok := msg.(*stream.Refuse); !ok || len(refuse.Reasons) != stream.MaxReasons {
		t.Errorf("told %v, %v", msg, err)
	}
}
