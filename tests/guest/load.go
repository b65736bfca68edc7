// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kemari-ft/kemari/tests/check"
	"golang.org/x/sys/unix"
)

type loadKind int

const (
	idle loadKind = iota
	cpu
	diskLoad
	mem
)

// load is a work profile.
type load struct {
	kind loadKind
	rate int // mem: MiB of pages written a second
	set  int // mem: MiB of memory they lie in
}

func (l load) String() string {
	switch l.kind {
	case cpu:
		return "cpu"
	case diskLoad:
		return "disk"
	case mem:
		return fmt.Sprintf("mem=%d,%d", l.rate, l.set)
	}
	return "idle"
}

// parseLoad reads what follows "load ".
func parseLoad(s string) (load, error) {
	switch s {
	case "idle":
		return load{kind: idle}, nil
	case "cpu":
		return load{kind: cpu}, nil
	case "disk":
		return load{kind: diskLoad}, nil
	}
	arg, ok := strings.CutPrefix(s, "mem=")
	rate, set, both := strings.Cut(arg, ",")
	l := load{kind: mem, set: 16}
	var err error
	if l.rate, err = strconv.Atoi(rate); err == nil && both {
		l.set, err = strconv.Atoi(set)
	}
	if !ok || err != nil || l.rate < 1 || l.rate > 4096 || l.set < 1 || l.set > 256 {
		return load{}, fmt.Errorf("load %.40q: known are idle, cpu, disk, mem=RATE and mem=RATE,SET (1-4096 MiB/s over 1-256 MiB)", s)
	}
	return l, nil
}

// memLoad writes one word in page after page of its set, and first looks
// whether the page still holds what was written to it last.
type memLoad struct {
	mu     sync.Mutex // protects all below
	wake   *sync.Cond // signalled when rate changes
	rate   int
	pages  []byte
	cursor int
	round  uint64
	st     check.MemoryStatus
}

const burst = 10 * time.Millisecond

func newMemLoad() *memLoad {
	m := &memLoad{round: 1}
	m.wake = sync.NewCond(&m.mu)
	return m
}

func (m *memLoad) set(rate, set int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.wake.Broadcast()
	m.rate = rate
	if want := set << 20; rate > 0 && want != len(m.pages) {
		fresh, err := pages(want)
		if err != nil {
			m.rate = 0
			return err
		}
		if m.pages != nil {
			if err := unix.Munmap(m.pages); err != nil {
				return fmt.Errorf("give back the memory load's pages: %w", err)
			}
		}
		m.pages, m.cursor, m.round = fresh, 0, 1
	}
	return nil
}

func (m *memLoad) status() check.MemoryStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.st
}

func (m *memLoad) run() {
	const second = int(time.Second / burst)
	owed := 0 // in pages * second, so that low rates are kept
	for next := monotonic(); ; next = max(next+int64(burst), monotonic()) {
		m.mu.Lock()
		for m.rate == 0 {
			m.wake.Wait()
		}
		for owed += m.rate * 256; owed >= second; owed -= second {
			m.write()
		}
		m.mu.Unlock()
		sleepUntil(next)
	}
}

// write stamps one page with the round; m.mu is held.
func (m *memLoad) write() {
	word := m.pages[m.cursor*4096:]
	if binary.LittleEndian.Uint64(word) != m.round-1 {
		m.st.Mismatches++
	}
	binary.LittleEndian.PutUint64(word, m.round)
	m.st.Written++
	if m.cursor++; m.cursor == len(m.pages)/4096 {
		m.cursor = 0
		m.round++
	}
}

// cpuLoad keeps every vCPU busy with what the rest of the guest leaves.
type cpuLoad struct {
	vcpus int
	mu    sync.Mutex // protects on for Wait
	wake  *sync.Cond
	on    atomic.Bool
}

func newCPULoad(vcpus int) *cpuLoad {
	c := &cpuLoad{vcpus: vcpus}
	c.wake = sync.NewCond(&c.mu)
	return c
}

func (c *cpuLoad) set(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.on.Store(on)
	c.wake.Broadcast()
}

func (c *cpuLoad) start(tty *console) {
	for vcpu := range c.vcpus {
		go c.burn(vcpu, tty)
	}
}

func (c *cpuLoad) burn(vcpu int, tty *console) {
	runtime.LockOSThread()
	if err := pin(vcpu); err != nil {
		tty.complain(err)
	}
	if err := background(); err != nil {
		tty.complain(err)
	}
	var h [sha256.Size]byte
	for {
		c.mu.Lock()
		for !c.on.Load() {
			c.wake.Wait()
		}
		c.mu.Unlock()
		for range 1000 {
			h = sha256.Sum256(h[:])
		}
	}
}
