// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"fmt"
	"time"
)

// TickLength is how often Detector.Tick is to be called.
const TickLength = 100 * time.Millisecond

// Path is one of the two ways on which heartbeats travel.
type Path int

const (
	// Link is the replication link; any record on it counts as a heartbeat.
	Link Path = iota
	// Second is the other path.
	Second
	paths
)

// Timing configures a Detector.
type Timing struct {
	Interval time.Duration // between two heartbeats
	Missed   int           // heartbeats missed before a path counts as silent
	Margin   time.Duration // on top, for a peer that is late
	// Grace is how long a peer may be silent on the link while the second
	// path answers: the time in which a daemon is restarted.
	Grace time.Duration
}

// DefaultTiming declares a peer dead after 1.8 s of silence on both paths.
var DefaultTiming = Timing{Interval: 500 * time.Millisecond, Missed: 3, Margin: 300 * time.Millisecond, Grace: 10 * time.Second}

// Check says what is wrong with the timing.
func (t Timing) Check() error {
	silence := time.Duration(t.Missed)*t.Interval + t.Margin
	switch {
	case t.Interval < TickLength:
		return fmt.Errorf("heartbeat interval %v: at least %v", t.Interval, TickLength)
	case t.Missed < 2:
		return fmt.Errorf("%d missed heartbeats: at least 2, one may be lost by a healthy network", t.Missed)
	case t.Margin < 0 || t.Grace < silence:
		return fmt.Errorf("margin %v, grace %v: the grace must be longer than the %v after which a path is silent", t.Margin, t.Grace, silence)
	}
	return nil
}

// Verdict is a Detector's judgement of the peer.
type Verdict int

const (
	// Alive: both paths answer.
	Alive Verdict = iota
	// Degraded: the link answers, the second path is silent.
	Degraded
	// DaemonLost: the link is silent, the second path answers.  This is a
	// daemon's restart, not a host's death (I9).
	DaemonLost
	// Hung: as DaemonLost, for longer than the grace.
	Hung
	// Dead: both paths are silent.
	Dead
)

func (v Verdict) String() string {
	return [...]string{"alive", "second path silent", "daemon silent", "daemon hung", "dead"}[v]
}

// Detector decides from heartbeats whether the peer is alive.
//
// It counts ticks which it was given, not the time of a clock: when this host
// stalls, the ticks stall with it, and a daemon that wakes up after seconds
// does not take its own absence for the peer's death.  A tick must come only
// after what had arrived before it has been reported to Seen.
type Detector struct {
	interval, silent, grace int
	age                     [paths]int // ticks since the last heartbeat
	beat                    int
}

// NewDetector makes a detector; the peer counts as seen just now.
func NewDetector(t Timing) (*Detector, error) {
	if err := t.Check(); err != nil {
		return nil, err
	}
	ticks := func(d time.Duration) int { return int((d + TickLength - 1) / TickLength) }
	return &Detector{
		interval: ticks(t.Interval),
		silent:   ticks(time.Duration(t.Missed)*t.Interval + t.Margin),
		grace:    ticks(t.Grace),
	}, nil
}

// Seen notes a sign of life.
func (d *Detector) Seen(p Path) { d.age[p] = 0 }

// Tick lets one TickLength pass.  beat says that a heartbeat is due.
func (d *Detector) Tick() (v Verdict, beat bool) {
	for p := range d.age {
		d.age[p] = min(d.age[p]+1, d.grace)
	}
	if d.beat--; d.beat <= 0 {
		d.beat, beat = d.interval, true
	}
	return d.Verdict(), beat
}

// Verdict is the judgement as of the last tick.
func (d *Detector) Verdict() Verdict {
	return judge(d.age[Link] >= d.silent, d.age[Second] >= d.silent, d.age[Link] >= d.grace)
}
