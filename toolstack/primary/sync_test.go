// SPDX-License-Identifier: Apache-2.0

package primary

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/go-hclog"
	"github.com/kemari-ft/kemari/toolstack/host"
	"github.com/kemari-ft/kemari/toolstack/lease"
	"github.com/kemari-ft/kemari/toolstack/link"
	"github.com/kemari-ft/kemari/toolstack/replica"
	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/toolstack/transport"
	"github.com/kemari-ft/kemari/toolstack/xsreplica"
)

// protecting is a session whose secondary holds an epoch, and what is said to the
// secondary next.
func protecting(t *testing.T, epoch uint64) (s *Session, told <-chan any) {
	t.Helper()
	near, far := net.Pipe()
	for _, end := range []net.Conn{near, far} {
		if err := end.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	said := make(chan any, 1)
	go func() {
		r := stream.NewReader(far, stream.Primary, stream.Limits{}, nil)
		_, _ = r.Next() // HELLO
		msg, err := r.Next()
		if err != nil {
			msg = err
		}
		said <- msg
	}()
	s = New(Config{
		Host: &host.Host{Log: hclog.NewNullLogger()}, Dom: 7, Guest: uuid.New(),
		Record: lease.Record{Role: lease.Primary, Generation: 1, Phase: lease.Protecting}, Frozen: true,
	})
	var err error
	if s.pulse, err = link.NewPulse(lease.DefaultTiming, nil, func(lease.Verdict) {}); err != nil {
		t.Fatal(err)
	}
	s.conn, s.connID = link.New(near), 1
	t.Cleanup(func() {
		s.conn.Close()
		s.pulse.Stop()
		s.measure.counters.close()
	})
	if err := s.conn.Hello(stream.Hello{Role: stream.Primary, ABI: 1, Generation: 1, CPUVendor: "AuthenticAMD", XenVersion: "4.20.0"}); err != nil {
		t.Fatal(err)
	}
	s.machine.Step(replica.Connected{Conn: 1})
	s.machine.Step(replica.PeerHello{Conn: 1, Hello: &stream.Hello{Generation: 1, Epoch: epoch}})
	return s, said
}

// TestUnprotectable: of a guest whose xenstore nodes cannot be carried to another host
// the protection ends, by the book; an xenstored that does not answer breaks the session
// off, and it is taken up again.
func TestUnprotectable(t *testing.T) {
	s, told := protecting(t, 3)
	silent := errors.New("xenstored does not answer")
	if err := s.unprotectable(silent); !errors.Is(err, silent) {
		t.Errorf("the session does not break off: %v", err)
	}
	if err := s.unprotectable(fmt.Errorf("node data: %w", xsreplica.ErrContent)); err != nil {
		t.Error(err)
	}
	if msg := <-told; msg != (stream.Discard{Generation: 1}) {
		t.Errorf("the secondary was told %#v", msg)
	}
	if !s.frozen || s.machine.Record().Phase != lease.Protecting {
		t.Error("the guest was let go before the secondary has discarded its copy")
	}
	if text := s.Status(false).Text; !strings.Contains(text, "node data") {
		t.Errorf("the operator is told %q", text)
	}
}

// TestOtherHostsFenceIsNoProof: a fence command that switches another host off than the
// one with the copy is not run (I8, I13).
func TestOtherHostsFenceIsNoProof(t *testing.T) {
	s, _ := protecting(t, 3)
	s.cfg.NoFence = errors.New("it switches another host off")
	if err := s.act(replica.Fence{Why: "secondary dead"}); err != nil {
		t.Fatal(err)
	}
	if done, ok := (<-s.events).(replica.FenceDone); !ok || !errors.Is(done.Err, s.cfg.NoFence) {
		t.Errorf("the fence ends with %v", done.Err)
	}
}

// TestSentInVain: an epoch that is never acknowledged leads to a new copy, after the
// secondary has discarded what it has.
func TestSentInVain(t *testing.T) {
	s, told := protecting(t, 3)
	s.tried = sending{generation: 1, epoch: 4, times: mostSends}
	if err := s.sendEpoch(replica.SendEpoch{Generation: 1, Epoch: 4}); err != nil {
		t.Fatal(err)
	}
	if msg := <-told; msg != (stream.Discard{Generation: 1}) {
		t.Errorf("the secondary was told %#v", msg)
	}
}

// listener is a peer that takes every call.
type listener struct{ transport.Transport }

func (listener) Dial(context.Context) (net.Conn, error) {
	near, _ := net.Pipe()
	return near, nil
}

// TestPauseBeforeCallingAgain: a peer that takes calls and acknowledges nothing is not
// called over and over; one that was of use is called back at once.
func TestPauseBeforeCallingAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Host: &host.Host{Log: hclog.NewNullLogger()}, Dom: 7, Guest: uuid.New(), Peer: listener{}})
		defer s.measure.counters.close()
		defer s.cancel()
		var err error
		if s.pulse, err = link.NewPulse(lease.DefaultTiming, nil, func(lease.Verdict) {}); err != nil {
			t.Fatal(err)
		}
		defer s.pulse.Stop()
		call := func(what string, want time.Duration) {
			t.Helper()
			began := time.Now()
			s.connect()
			ev := (<-s.events).(dialed)
			s.dialing, s.connID = false, s.connID+1
			ev.conn.Close()
			if got := time.Since(began); got != want {
				t.Errorf("%s call takes %v, want %v", what, got, want)
			}
		}
		call("the first", 0)
		call("after a call in vain, the second", redialTime)
		call("after two calls in vain, the third", redialTime)
		if err := s.received(stream.Ack{Generation: 1, Epoch: 1}); err != nil {
			t.Fatal(err)
		}
		call("after an acknowledgement, the next", 0)
		call("after a call in vain, the last", redialTime)
	})
}
