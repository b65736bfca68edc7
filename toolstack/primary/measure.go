// SPDX-License-Identifier: Apache-2.0

package primary

import (
	"sync"
	"time"

	"github.com/kemari-ft/kemari/toolstack/lease"
	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/xen/kemariop"
)

// Sync is what one sync cost. The durations follow each other, but for Send,
// which is the part of Copy that was spent in writing to the connection; Wake
// is before all of them: from the trigger in Xen to the freeze there. Of the
// hypercall that freezes, the way back from Xen is in none.
type Sync struct {
	Epoch   uint64        `json:"epoch"`
	At      time.Time     `json:"at"`
	Reason  string        `json:"reason"`
	Wake    time.Duration `json:"wake_ns"`
	Look    time.Duration `json:"look_ns"`    // at rings and store
	Store   time.Duration `json:"store_ns"`   // xenstore's nodes
	Harvest time.Duration `json:"harvest_ns"` // the second hypercall
	Copy    time.Duration `json:"copy_ns"`
	Send    time.Duration `json:"send_ns"`
	Ack     time.Duration `json:"ack_ns"`
	Release time.Duration `json:"release_ns"`
	Pause   time.Duration `json:"pause_ns"` // all of it, as the guest saw it

	Dirty  uint32 `json:"dirty"` // entries of Xen's list
	Hot    uint32 `json:"hot"`   // pages that are listed whether dirtied or not
	Always uint32 `json:"always"`
	Same   uint32 `json:"same"`  // listed and not sent: the secondary has these contents
	Pages  uint64 `json:"pages"` // sent with contents
	Lines  uint64 `json:"lines"` // pages of which only the lines were sent that have changed
	Zeros  uint64 `json:"zeros"`
	Holes  uint64 `json:"holes"`
	Octets uint64 `json:"octets"`

	// What the daemon did from before the freeze until after the release, all
	// of it: other guests' sessions and heartbeats are counted with this one's.
	Hypercalls  uint64 `json:"hypercalls"`             // each an ioctl of privcmd
	Wakeups     uint64 `json:"wakeups"`                // voluntary context switches of all threads
	ReadsWrites uint64 `json:"reads_writes,omitempty"` // system calls like read and write, of the kernel's own count; 0: it does not count them
}

// meter measures the sync under way. It belongs to the session's goroutine.
type meter struct {
	start, last time.Time
	now         Sync
	counters    counters
	before      counts
}

func (m *meter) begin(why reason) {
	// A guest that its own output has stopped waits for this: some us.
	m.before = m.counters.read()
	m.now = Sync{At: time.Now(), Reason: string(why)}
}

// frozen begins the parts that follow each other: Xen has frozen the guest. What
// was before that is Wake.
func (m *meter) frozen() {
	m.start = time.Now()
	m.last = m.start
}

// mark ends one part.
func (m *meter) mark(part *time.Duration) {
	t := time.Now()
	*part = t.Sub(m.last)
	m.last = t
}

func (m *meter) sent(c *Capture, r kemariop.SyncResult, sent stream.Sent, writing time.Duration) {
	m.mark(&m.now.Copy)
	m.now.Send = writing
	trigger, frozen, _ := c.Shared().Times()
	if frozen > trigger {
		m.now.Wake = time.Duration(frozen - trigger)
	}
	m.now.Dirty, m.now.Always, m.now.Same, m.now.Hot = r.DirtyNr, r.AlwaysNr, c.same, uint32(c.hot.Len())
	m.now.Pages, m.now.Zeros, m.now.Holes, m.now.Octets = sent.Pages, sent.Zeros, sent.Holes, sent.Octets
	m.now.Lines = sent.Lines
}

func (m *meter) end() Sync {
	m.now.Pause = m.now.Wake + m.last.Sub(m.start)
	n := m.counters.read()
	m.now.Hypercalls = n.hypercalls - m.before.hypercalls
	m.now.Wakeups = n.wakeups - m.before.wakeups
	if m.counters.io != nil {
		m.now.ReadsWrites = n.readsWrites - m.before.readsWrites
	}
	return m.now
}

// keep is how many syncs are remembered.
const keep = 256

// Status is what is known of a session.
type Status struct {
	Record  lease.Record
	Epoch   uint64 // newest one acknowledged
	Waiting string // why output is held, or empty
	Text    string // the last report
	Copied  uint64 // pages sent in the first copy
	Total   uint64
	Reads   uint64 // stops that needed no epoch
	PutOff  uint64 // syncs put off because of xenstore
	Busy    string // why the last one was put off
	Syncs   uint64
	Last    []Sync // the newest ones, oldest first
}

// status is read by other goroutines than the session's.
type status struct {
	mu   sync.Mutex
	s    Status
	ring [keep]Sync
	err  error // why the session broke off
	why  error // why the guest is not protected
}

func (st *status) note(rec lease.Record, waiting string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.s.Record, st.s.Waiting = rec, waiting
}

func (st *status) say(text string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.s.Text = text
}

func (st *status) progress(n, total uint64) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.s.Copied, st.s.Total = n, total
}

func (st *status) reads() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.s.Reads++
}

func (st *status) putOff(why string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.s.PutOff++
	st.s.Busy = why
}

func (st *status) synced(m Sync) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.ring[st.s.Syncs%keep] = m
	st.s.Syncs++
	st.s.Epoch = m.Epoch
}

// fail notes why the guest cannot be protected: the first reason counts.
func (st *status) fail(why error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.why == nil {
		st.why = why
	}
}

func (st *status) end(err error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.err = err
}

// Err says why the session broke off and left the guest as it was; nil if it
// came to its end.
func (s *Session) Err() error {
	s.status.mu.Lock()
	defer s.status.mu.Unlock()
	return s.status.err
}

// Refused says why the guest could not be protected, if that is known.
func (s *Session) Refused() error {
	s.status.mu.Lock()
	defer s.status.mu.Unlock()
	return s.status.why
}

// Status describes the session; with all it has the newest syncs.
func (s *Session) Status(all bool) Status {
	st := &s.status
	st.mu.Lock()
	defer st.mu.Unlock()
	out := st.s
	if all {
		n := min(out.Syncs, keep)
		for i := out.Syncs - n; i < out.Syncs; i++ {
			out.Last = append(out.Last, st.ring[i%keep])
		}
	}
	return out
}
