// SPDX-License-Identifier: Apache-2.0

package nbd

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// A Match says which requests a rule takes. The zero value takes all.
type Match struct {
	Host     string // "" for every host
	Ops      []Op   // nil for every command
	From, To uint64 // octets [From, To) that the request touches; To 0 for the whole disk
}

func (m Match) takes(e Event) bool {
	if m.Host != "" && m.Host != e.Host || m.Ops != nil && !slices.Contains(m.Ops, e.Op) {
		return false
	}
	if m.To == 0 {
		return true
	}
	return e.Op != Flush && e.Offset < m.To && e.Offset+uint64(e.Length) > m.From
}

// A Rule is what happens to matching requests that arrive while it is in
// force. The first that matches, in order of their making, counts.
type Rule struct {
	Match
	Delay time.Duration // wait this long before carrying it out
	Fail  Errno         // answer with this error and do not carry it out
	Drop  bool          // neither carry it out nor ever answer
	Hold  bool          // wait for Release or Discard; 16 held ones stop a QEMU's disk
	// Stray requests are not waited for by Drain: they are stuck in the
	// storage network, out of reach of whoever fences their host.
	Stray bool
	Limit int // of requests that it takes; 0 for no limit

	l     *LUN
	taken int           // protected by l.mu
	more  chan struct{} // protected by l.mu; closed and replaced when taken grows

	mu   sync.Mutex
	held []chan verdict // protected by mu; of held requests in order of arrival
}

// verdict is what a rule decided about a request.
type verdict struct {
	drop  bool
	errno Errno
}

// Add puts a rule into force. The rule must not be changed afterwards.
func (l *LUN) Add(r *Rule) *Rule {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.l = l
	r.more = make(chan struct{})
	l.rules = append(l.rules, r)
	return r
}

// Remove ends a rule for requests to come. What it holds stays held.
func (r *Rule) Remove() {
	r.l.mu.Lock()
	defer r.l.mu.Unlock()
	r.l.rules = slices.DeleteFunc(r.l.rules, func(x *Rule) bool { return x == r })
}

// matchLocked finds the rule for the newest request of the log, and where its
// verdict will come from if the rule holds it. It runs under l.mu.
func (l *LUN) matchLocked(e Event) (*Rule, <-chan verdict) {
	for _, r := range l.rules {
		if !r.takes(e) || r.Limit != 0 && r.taken >= r.Limit {
			continue
		}
		var held chan verdict
		if r.Hold {
			held = make(chan verdict, 1)
			r.mu.Lock()
			r.held = append(r.held, held)
			r.mu.Unlock()
		}
		r.taken++
		close(r.more)
		r.more = make(chan struct{})
		return r, held
	}
	return nil, nil
}

// wait blocks a request for as long as the rule wants.
func (r *Rule) wait(held <-chan verdict) verdict {
	time.Sleep(r.Delay)
	if held != nil {
		if v := <-held; v.drop {
			return v
		}
	}
	return verdict{drop: r.Drop, errno: r.Fail}
}

// Taken waits until the rule has taken at least n requests.
func (r *Rule) Taken(ctx context.Context, n int) error {
	for {
		r.l.mu.Lock()
		taken, more := r.taken, r.more
		r.l.mu.Unlock()
		if taken >= n {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return fmt.Errorf("nbd: %d requests matched, waiting for %d: %w", taken, n, context.Cause(ctx))
		}
	}
}

// Release lets what the rule holds go on, dead hosts' requests too, and
// returns how many that were. Requests to come are held again; see Remove.
func (r *Rule) Release() int { return r.decide(verdict{}) }

// Discard forgets what the rule holds, as a network does with frames.
func (r *Rule) Discard() int { return r.decide(verdict{drop: true}) }

func (r *Rule) decide(v verdict) int {
	r.mu.Lock()
	held := r.held
	r.held = nil
	r.mu.Unlock()
	for _, c := range held {
		c <- v
	}
	return len(held)
}
