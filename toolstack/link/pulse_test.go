// SPDX-License-Identifier: Apache-2.0

package link

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kemari-ft/kemari/toolstack/lease"
)

// pulse runs a pulse in a bubble and collects its verdicts.
func pulse(t *testing.T, second func() uint64, f func(p *Pulse, c *Conn, verdict func() lease.Verdict)) {
	synctest.Test(t, func(t *testing.T) {
		verdicts := make(chan lease.Verdict, 64)
		p, err := NewPulse(lease.DefaultTiming, second, func(v lease.Verdict) { verdicts <- v })
		if err != nil {
			t.Fatal(err)
		}
		near, far := net.Pipe()
		c := New(near)
		go func() { // the peer reads heartbeats
			var b [4096]byte
			for {
				if _, err := far.Read(b[:]); err != nil {
					return
				}
			}
		}()
		p.Over(c, 1)
		p.Arm(true)
		f(p, c, func() lease.Verdict {
			select {
			case v := <-verdicts:
				return v
			case <-time.After(time.Minute):
				return -1
			}
		})
		p.Stop()
		c.Close()
		far.Close()
	})
}

// TestPulseClosesADeadConnection: whoever is stuck in a write to a peer that
// has vanished gets free.
func TestPulseClosesADeadConnection(t *testing.T) {
	pulse(t, nil, func(_ *Pulse, c *Conn, verdict func() lease.Verdict) {
		if v := verdict(); v != lease.Dead {
			t.Errorf("verdict %v", v)
		}
		if _, err := c.conn.Write([]byte{0}); err == nil {
			t.Error("the connection is still open")
		}
		if v := verdict(); v != lease.Dead {
			t.Errorf("a fence that failed is not tried again: %v", v)
		}
	})
}

func TestPulseHearsTheSecondPath(t *testing.T) {
	var n uint64
	pulse(t, func() uint64 { n++; return n }, func(_ *Pulse, _ *Conn, verdict func() lease.Verdict) {
		if v := verdict(); v != lease.DaemonLost {
			t.Errorf("verdict %v", v)
		}
		if v := verdict(); v != lease.Hung {
			t.Errorf("verdict %v", v)
		}
	})
}

func TestUnarmedPulseJudgesNobody(t *testing.T) {
	pulse(t, nil, func(p *Pulse, _ *Conn, verdict func() lease.Verdict) {
		p.Arm(false)
		if v := verdict(); v != -1 {
			t.Errorf("verdict %v", v)
		}
	})
}

// TestDisarmedPulseTakesNothingBack: whoever finds a peer dead, and gives up what
// it had of it, does not hear that the peer answers again.
func TestDisarmedPulseTakesNothingBack(t *testing.T) {
	pulse(t, nil, func(p *Pulse, _ *Conn, verdict func() lease.Verdict) {
		if v := verdict(); v != lease.Dead {
			t.Errorf("verdict %v", v)
		}
		p.Arm(false)
		if v := verdict(); v != -1 {
			t.Errorf("after that, verdict %v", v)
		}
	})
}
