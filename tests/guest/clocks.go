// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/kemari-ft/kemari/tests/check"
	"golang.org/x/sys/unix"
)

const (
	sampleEvery = 100 * time.Millisecond // or a twentieth of a tick, for a guest that ticks rarely
	jumpFrom    = 100 * time.Millisecond // beyond what interrupts do to a sleep
	skewFrom    = 2 * time.Millisecond
	userHz      = 100 // unit of /proc/stat: USER_HZ, the same on every x86 Linux
	recentSteps = 24
)

func monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // only a bad pointer or clock number makes it fail
	}
	return ts.Nano()
}

// sleepUntil leaves the sleeping to Go's runtime. A loop of system calls that
// block keeps the runtime's monitor awake, which wakes this guest a hundred times
// a second, or, where it thinks that a processor is kept, interrupts the sleep.
func sleepUntil(mono int64) { time.Sleep(time.Duration(mono - monotonic())) }

// sample is one look at the clocks.
type sample struct {
	mono  int64
	tsc   uint64
	loose bool // something ran between the two readings: they are not of one instant

	// Looked at after mono and before by.
	steal  []int64 // of each vCPU
	sameID bool    // the boot id is the one of the start
	by     int64
}

// clockState judges samples. It is pure.
type clockState struct {
	hz   uint64
	prev sample
	st   check.ClockStatus
}

func (c *clockState) note(what string, at, size int64) {
	c.st.Anomalies++
	switch what {
	case check.MonoBack, check.TSCBack, check.StealBack:
		c.st.Backward++
	}
	c.st.WorstNs = max(c.st.WorstNs, size)
	if len(c.st.Recent) == recentSteps {
		copy(c.st.Recent, c.st.Recent[1:])
		c.st.Recent = c.st.Recent[:recentSteps-1]
	}
	c.st.Recent = append(c.st.Recent, check.ClockStep{What: what, AtNs: at, SizeNs: size})
}

func (c *clockState) tscNs(ticks uint64) int64 { return int64(float64(ticks) * 1e9 / float64(c.hz)) }

// add judges s against the sample before it, after a sleep of slept.
func (c *clockState) add(s sample, slept time.Duration) {
	if !s.sameID {
		c.st.BootIDChanges++
	}
	if p := c.prev; c.st.Samples > 0 {
		d := s.mono - p.mono
		switch {
		case d < int64(slept): // a sleep does not end early
			c.note(check.MonoBack, s.mono, int64(slept)-d)
		case d > int64(slept+jumpFrom):
			c.note(check.MonoJump, s.mono, d-int64(slept))
		}
		if s.tsc < p.tsc {
			c.note(check.TSCBack, s.mono, c.tscNs(p.tsc-s.tsc))
		} else if skew := c.tscNs(s.tsc-p.tsc) - d; !s.loose && !p.loose && max(skew, -skew) > int64(skewFrom)+max(d, 0)/1000 {
			c.note(check.Skew, s.mono, max(skew, -skew))
		}
		// No less than what passed between the two looks.
		c.addSteal(s, s.by-p.mono)
	}
	c.st.Samples++
	c.st.MonoNs, c.st.TSC, c.st.StealNs = s.mono, s.tsc, sum(s.steal)
	// Steal is copied, because the caller reuses the slice.
	s.steal = append(c.prev.steal[:0], s.steal...)
	c.prev = s
}

func (c *clockState) addSteal(s sample, d int64) {
	const granule = 2 * int64(time.Second) / userHz
	for i := range min(len(s.steal), len(c.prev.steal)) {
		switch grown := s.steal[i] - c.prev.steal[i]; {
		case grown < 0:
			c.note(check.StealBack, s.mono, -grown)
		case grown > d+granule:
			c.note(check.StealJump, s.mono, grown-d)
		}
	}
}

func sum(ns []int64) (all int64) {
	for _, n := range ns {
		all += n
	}
	return all
}

// parseSteal reads the steal time of each vCPU from /proc/stat into dst.
func parseSteal(stat []byte, dst []int64) []int64 {
	for len(stat) > 0 {
		line := stat
		if i := bytes.IndexByte(stat, '\n'); i >= 0 {
			line, stat = stat[:i], stat[i+1:]
		} else {
			stat = nil
		}
		if len(line) < 5 || string(line[:3]) != "cpu" || line[3] == ' ' {
			continue
		}
		field, v := 0, int64(0)
		for _, b := range line {
			if b == ' ' {
				if field == 8 {
					break
				}
				field, v = field+1, 0
			} else if field == 8 {
				v = v*10 + int64(b-'0')
			}
		}
		if field >= 8 {
			dst = append(dst, v*int64(time.Second)/userHz)
		}
	}
	return dst
}

// watcher feeds clockState.
type watcher struct {
	vcpus int
	every time.Duration
	hz    uint64
	id    string   // of this boot
	stat  *os.File // /proc/stat
	boot  *os.File // the kernel's boot id
	// What a sample needs is reused: garbage would be dirty pages.
	buf   [16 << 10]byte
	steal []int64

	mu    sync.Mutex // protects state
	state clockState
}

func newWatcher(id string, vcpus int, tick time.Duration) (*watcher, error) {
	stat, err := os.Open("/proc/stat")
	if err != nil {
		return nil, err
	}
	boot, err := os.Open(bootIDFile)
	if err != nil {
		return nil, err
	}
	w := &watcher{vcpus: vcpus, every: max(sampleEvery, tick/20), id: id, stat: stat, boot: boot, hz: calibrate()}
	w.state = clockState{hz: w.hz}
	w.state.st.TSCHz = w.hz
	return w, nil
}

// calibrate measures the TSC's frequency against CLOCK_MONOTONIC.
func calibrate() uint64 {
	const span = 300 * time.Millisecond
	tsc0, mono0, _ := pair()
	sleepUntil(mono0 + int64(span))
	tsc1, mono1, _ := pair()
	return uint64(float64(tsc1-tsc0) * 1e9 / float64(mono1-mono0))
}

// pair reads both clocks as nearly at once as a few attempts allow: it keeps
// the reading between whose ends the TSC advanced the least, and is content with
// some 50 us. Where Xen emulates the TSC, each reading is an exit.
func pair() (tsc uint64, mono int64, width uint64) {
	width = ^uint64(0)
	for i := 0; i < 5 && width > 1<<17; i++ {
		a := rdtsc()
		m := monotonic()
		if b := rdtsc(); b-a < width {
			tsc, mono, width = a+(b-a)/2, m, b-a
		}
	}
	return tsc, mono, width
}

// run samples on one vCPU after the other, so that a clock that differs between
// vCPUs shows as a step backwards.
func (w *watcher) run(tty *console) {
	runtime.LockOSThread()
	// What the guest's own work does to the watcher's sleep is no jump.
	if err := foreground(); err != nil {
		tty.complain(err)
	}
	for i, prev := 0, monotonic(); ; i++ {
		sleepUntil(prev + int64(w.every))
		if w.vcpus > 1 {
			if err := pin(i % w.vcpus); err != nil {
				tty.complain(err)
			}
		}
		s, err := w.look()
		if err != nil {
			tty.complain(err)
			continue
		}
		w.mu.Lock()
		w.state.add(s, w.every)
		w.mu.Unlock()
		prev = s.mono
	}
}

func (w *watcher) look() (s sample, err error) {
	var width uint64
	s.tsc, s.mono, width = pair()
	s.loose = width > w.hz/1000 // a millisecond
	n, err := unix.Pread(int(w.stat.Fd()), w.buf[:], 0)
	if err != nil {
		return s, fmt.Errorf("read /proc/stat: %w", err)
	}
	w.steal = parseSteal(w.buf[:n], w.steal[:0])
	if n, err = unix.Pread(int(w.boot.Fd()), w.buf[:], 0); err != nil {
		return s, fmt.Errorf("read %s: %w", bootIDFile, err)
	}
	s.steal, s.sameID, s.by = w.steal, string(bytes.TrimSpace(w.buf[:n])) == w.id, monotonic()
	return s, nil
}

// tscBack files a step backwards that the gap meter saw.
func (w *watcher) tscBack(ticks uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state.note(check.TSCBack, monotonic(), w.state.tscNs(ticks))
}

// status is what was seen so far, and what the clocks say now: the last sample
// may be old.
func (w *watcher) status() check.ClockStatus {
	stat, err := os.ReadFile("/proc/stat")
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.state.st
	s.Recent = slices.Clone(s.Recent)
	s.MonoNs = monotonic()
	if err == nil {
		s.StealNs = sum(parseSteal(stat, nil))
	}
	return s
}

// stealNs is the steal time of the last sample.
func (w *watcher) stealNs() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state.st.StealNs
}
