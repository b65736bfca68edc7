// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/kemari-ft/kemari/tests/check"
	"golang.org/x/sys/unix"
)

// The meter looks at the TSC after each lookEvery of sleep, and takes what is longer
// than leastGap for a gap: more than its own kernel needs to wake it, in the lab, and
// less than any pause there. A gap holds the sleep in which it began, too.
const (
	lookEvery  = 2 * time.Millisecond
	leastGap   = 5 * lookEvery
	yieldEvery = 100
)

// meter measures how long the guest was kept from running, by the gaps in its
// own TSC. It sees only what a guest sees, and so measures Kemari, Remus and a
// bare hypervisor with the same rod. Its thread, on the last vCPU, runs before all
// others of the guest: what these do is in no gap, nor is it beside one.
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
	measured atomic.Uint64 // TSC ticks
	gaps     histogram
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
	m.d.gaps.reset()
}

func (m *meter) status(hz uint64) check.GapStatus {
	return check.GapStatus{
		On: m.on.Load(), VCPU: m.vcpu,
		MeasuredUs: micros(m.d.measured.Load(), hz),
		LeastUs:    float64(leastGap.Microseconds()),
		Gaps:       m.d.gaps.summary(hz),
	}
}

func (m *meter) run(tty *console) {
	runtime.LockOSThread()
	if err := pin(m.vcpu); err != nil {
		tty.complain(err)
	}
	if err := foreground(); err != nil {
		tty.complain(err)
	}
	for {
		m.mu.Lock()
		for !m.on.Load() {
			m.wake.Wait()
		}
		m.mu.Unlock()
		m.measure(rest)
	}
}

// rest sleeps without the knowledge of the runtime, whose other threads, which do not
// run before all others, would have a part in the waking.
//
//go:nosplit
func rest() {
	d := unix.NsecToTimespec(int64(lookEvery))
	syscall.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&d)), 0, 0)
}

// measure looks after each rest until the meter is switched off.
func (m *meter) measure(rest func()) {
	least := m.clocks.hz / uint64(time.Second/leastGap)
	for prev, looks := rdtsc(), 1; m.on.Load(); looks++ {
		// Nothing else in this loop lets the runtime stop the world, or take its
		// processor for another thread. What comes in between is not measured.
		if looks%yieldEvery == 0 {
			runtime.Gosched()
			prev = rdtsc()
		}
		rest()
		now := rdtsc()
		if now < prev {
			m.clocks.tscBack(prev - now)
		} else {
			m.d.measured.Add(now - prev)
			if gap := now - prev; gap > least {
				m.d.gaps.add(gap)
			}
		}
		prev = now
	}
}
