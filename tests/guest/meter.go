// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kemari-ft/kemari/tests/check"
	"golang.org/x/sys/unix"
)

const leastGap = 20 * time.Microsecond

// meter measures how long the guest was kept from running, by the gaps in its
// own TSC. It sees only what a guest sees, and so measures Kemari, Remus and a
// bare hypervisor with the same rod. Its thread runs in the idle class on the
// last vCPU: with two vCPUs it is nearly alone there, with one it gets what the
// rest leaves, and the gaps in which the rest ran are counted apart.
type meter struct {
	vcpu   int
	clocks *watcher

	mu   sync.Mutex // protects on for Wait
	wake *sync.Cond
	on   atomic.Bool

	d *meterData
}

// meterData is what the meter writes, on pages of its own.
type meterData struct {
	measured, threshold, loop atomic.Uint64 // TSC ticks
	stopped, switched         histogram
}

func newMeter(vcpu int, w *watcher) (*meter, error) {
	d, err := table[meterData](1)
	if err != nil {
		return nil, err
	}
	m := &meter{vcpu: vcpu, clocks: w, d: &d[0]}
	m.wake = sync.NewCond(&m.mu)
	return m, nil
}

func (m *meter) setOn(on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.on.Store(on)
	m.wake.Broadcast()
}

func (m *meter) reset() {
	m.d.measured.Store(0)
	m.d.stopped.reset()
	m.d.switched.reset()
}

func (m *meter) status(hz uint64) check.GapStatus {
	return check.GapStatus{
		On: m.on.Load(), VCPU: m.vcpu,
		MeasuredUs:  micros(m.d.measured.Load(), hz),
		ThresholdUs: micros(m.d.threshold.Load(), hz),
		LoopUs:      micros(m.d.loop.Load(), hz),
		Stopped:     m.d.stopped.summary(hz),
		Switched:    m.d.switched.summary(hz),
	}
}

func (m *meter) run(tty *console) {
	runtime.LockOSThread()
	if err := pin(m.vcpu); err != nil {
		tty.complain(err)
	}
	if err := background(); err != nil {
		tty.complain(err)
	}
	for {
		m.mu.Lock()
		for !m.on.Load() {
			m.wake.Wait()
		}
		m.mu.Unlock()
		m.d.loop.Store(loopLength())
		// Where Xen emulates the TSC every RDTSC is a trip into it: the
		// threshold must stand clear of the loop itself.
		m.d.threshold.Store(max(m.clocks.hz/uint64(time.Second/leastGap), 4*m.d.loop.Load()))
		if err := m.measure(); err != nil {
			tty.complain(err)
			m.setOn(false)
		}
	}
}

// loopLength is the median time between two readings in the loop.
func loopLength() uint64 {
	var l [1001]uint64
	for i := range l {
		last, now := spin(rdtsc(), 0, ^uint64(0))
		l[i] = now - last
	}
	slices.Sort(l[:])
	return l[len(l)/2]
}

// measure spins until the meter is switched off.
func (m *meter) measure() error {
	threshold, second := m.d.threshold.Load(), m.clocks.hz
	switches, err := contextSwitches()
	if err != nil {
		return err
	}
	for prev := rdtsc(); m.on.Load(); {
		begin := prev
		last, now := spin(prev, threshold, prev+second)
		if now < last {
			m.clocks.tscBack(last - now)
			prev = rdtsc()
			continue
		}
		m.d.measured.Add(now - begin)
		gap := now - last
		if gap <= threshold {
			gap = 0 // the deadline: time to look at m.on
		}
		s, err := contextSwitches()
		if err != nil {
			return err
		}
		// The book-keeping is not a gap, unless the vCPU was stopped in it.
		prev = rdtsc()
		if aside := prev - now; aside > second/1000 {
			gap += aside
		}
		if gap > 0 && s == switches {
			m.d.stopped.add(gap)
		} else if gap > 0 {
			m.d.switched.add(gap)
		}
		switches = s
	}
	return nil
}

// contextSwitches counts how often another thread ran in this one's place.
func contextSwitches() (int64, error) {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &r); err != nil {
		return 0, fmt.Errorf("count the meter's context switches: %w", err)
	}
	return r.Nvcsw + r.Nivcsw, nil
}
