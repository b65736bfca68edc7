// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/kemari-ft/kemari/tests/check"
	"golang.org/x/sys/unix"
)

// linksPerTick fills one page of the table: an idle guest stays idle.
const linksPerTick = 4096 / 32

// guest holds the witnesses together.
type guest struct {
	tty    *console
	bootID string
	vcpus  int
	tick   time.Duration

	mu      sync.Mutex // protects the three below
	ticks   uint64
	chain   *check.Chain
	profile load

	replayMu sync.Mutex   // protects replay; taken before mu
	replay   *check.Chain // the same chain computed a second time, in memory of its own

	disk   *disk // nil: none
	clocks *watcher
	meter  *meter
	mem    *memLoad
	cpus   *cpuLoad
}

func newGuest(tty *console, vcpus int, p params) (*guest, error) {
	id, err := bootID()
	if err != nil {
		return nil, err
	}
	g := &guest{tty: tty, bootID: id, vcpus: vcpus, tick: p.tick, profile: load{kind: idle}}
	slots := p.tableMiB << 20 / len(check.Hash{})
	for _, c := range []**check.Chain{&g.chain, &g.replay} {
		t, err := table[check.Hash](slots)
		if err != nil {
			return nil, err
		}
		*c = check.NewChain(id, t)
	}
	name, err := findDisk(p.disk)
	if err != nil {
		tty.complain(err)
	}
	if name != "" {
		boot, err := check.ParseBootID(id)
		if err != nil {
			return nil, err
		}
		if g.disk, err = openDisk(name, boot, g.now); err != nil {
			return nil, err
		}
	}
	if g.clocks, err = newWatcher(id, vcpus, p.tick); err != nil {
		return nil, err
	}
	if g.meter, err = newMeter(vcpus-1, g.clocks); err != nil {
		return nil, err
	}
	g.mem = newMemLoad()
	g.cpus = newCPULoad(vcpus)
	return g, nil
}

const bootIDFile = "/proc/sys/kernel/random/boot_id"

func bootID() (string, error) {
	raw, err := os.ReadFile(bootIDFile)
	return strings.TrimSpace(string(raw)), err
}

// now is what a record carries of its time of issue.
func (g *guest) now() (mono int64, link uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return monotonic(), g.chain.Link()
}

func (g *guest) start() {
	name := "none"
	if g.disk != nil {
		name = g.disk.name
		g.disk.start()
	}
	g.tty.line(fmt.Sprintf("guest boot_id=%s vcpus=%d table=%d slots disk=%s tsc_hz=%d",
		g.bootID, g.vcpus, g.chain.Slots(), name, g.clocks.hz))
	go g.clocks.run(g.tty)
	go g.meter.run(g.tty)
	go g.mem.run()
	g.cpus.start(g.tty)
	go g.beat()
}

// beat ticks for ever. A tick that comes late moves those after it: a guest
// that was stopped must not make up for it in a burst.
func (g *guest) beat() {
	for next := monotonic(); ; next = max(next+int64(g.tick), monotonic()) {
		sleepUntil(next)
		if g.disk != nil {
			g.disk.allow(1)
		}
		g.tty.line(g.advance().String())
	}
}

func (g *guest) advance() check.Tick {
	g.mu.Lock()
	for range linksPerTick {
		g.chain.Advance()
	}
	g.ticks++
	head := g.chain.Head()
	t := check.Tick{N: g.ticks, Link: g.chain.Link(), Short: fmt.Sprintf("%x", head[:8])}
	g.mu.Unlock()
	t.MonoNs, t.TSC, t.StealNs = monotonic(), rdtsc(), g.clocks.stealNs()
	if g.disk != nil {
		t.Acked = g.disk.through()
	}
	return t
}

// recompute brings the replay to the chain's link and compares the tables.
func (g *guest) recompute(fromSeed bool) check.ChainStatus {
	g.replayMu.Lock()
	defer g.replayMu.Unlock()
	if fromSeed {
		g.replay.Restart(g.bootID)
	}
	for {
		g.mu.Lock()
		target := g.chain.Link()
		if target-g.replay.Link() <= linksPerTick {
			for g.replay.Link() < target {
				g.replay.Advance()
			}
			bad := g.chain.Differs(g.replay)
			s := check.ChainStatus{Link: target, Hash: g.chain.Head(), Slots: g.chain.Slots(), Verified: bad == 0, BadSlots: bad}
			g.mu.Unlock()
			return s
		}
		g.mu.Unlock() // the chain ticks on while the replay catches up
		for g.replay.Link() < target {
			g.replay.Advance()
		}
	}
}

func (g *guest) status() check.Status {
	s := check.Status{BootID: g.bootID, VCPUs: g.vcpus, Chain: g.recompute(false)}
	g.mu.Lock()
	s.Load, s.Ticks = g.profile.String(), g.ticks
	g.mu.Unlock()
	if g.disk != nil {
		s.Disk = g.disk.status()
	}
	s.Memory = g.mem.status()
	s.Clocks = g.clocks.status()
	s.Gaps = g.meter.status(g.clocks.hz)
	return s
}

func (g *guest) verify() check.Verify {
	v := check.Verify{Chain: g.recompute(true)}
	if g.disk != nil {
		g.disk.verify(&v)
	}
	v.OK = v.Chain.Verified && v.Missing+v.Torn+v.Altered == 0 && v.Error == ""
	return v
}

func (g *guest) setLoad(l load) error {
	if l.kind == diskLoad && g.disk == nil {
		return errors.New("load disk: the guest has no disk")
	}
	if err := g.mem.set(l.rate, l.set); err != nil {
		return err
	}
	g.cpus.set(l.kind == cpu)
	if g.disk != nil {
		g.disk.flatOut(l.kind == diskLoad)
	}
	g.mu.Lock()
	g.profile = l
	g.mu.Unlock()
	return nil
}

// shutdown returns only if the kernel refuses.
func (g *guest) shutdown(cmd int) error {
	if g.disk != nil {
		g.disk.stop(5 * time.Second)
	}
	g.tty.line("bye")
	time.Sleep(200 * time.Millisecond) // the console is not drained by reboot(2)
	if err := unix.Reboot(cmd); err != nil {
		return fmt.Errorf("reboot(%#x): %w", cmd, err)
	}
	select {} // reboot(2) in process 1 does not come back
}
