// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/kemari-ft/kemari/xen/kemariop"
)

// hammer runs the workers against each other for a while; each has an argument
// page of its own. A worker returns what Xen answered.
func (t *try) hammer(g *guest, d time.Duration, allowed []syscall.Errno, workers ...func(r *raw, i int) syscall.Errno) {
	var wg sync.WaitGroup
	bad := make([]string, len(workers))
	good := make([]int, len(workers))
	for w, f := range workers {
		r := t.raw(g.dom)
		wg.Go(func() {
			for i, end := 0, time.Now().Add(d); time.Now().Before(end) && bad[w] == ""; i++ {
				errno := f(r, i)
				if errno == 0 {
					good[w]++
				} else if !slices.Contains(allowed, errno) {
					bad[w] = fmt.Sprintf("worker %d, call %d: got %s", w, i, answer(errno))
				}
			}
		})
	}
	wg.Wait()
	for _, b := range bad {
		if b != "" {
			t.fail("%s, want one of %v", b, allowed)
		}
	}
	// Xen promises no fairness: one of two that do the same may come too late
	// each time.
	if best := slices.Max(good[1:]); best == 0 {
		t.fail("%d workers: got no success but in asking for the status, want some", len(workers))
	}
}

const hammerTime = 4 * time.Second

func status(r *raw, _ int) syscall.Errno { return r.op(opStatus, 0) }

func syncRelease(r *raw, i int) syscall.Errno {
	epoch, errno := r.sync(harvest)
	if errno != 0 {
		return errno
	}
	if i%2 == 0 {
		return r.release(epoch, out|unpause)
	}
	if errno := r.release(epoch, unpause); errno != 0 {
		return errno
	}
	return r.release(epoch, out)
}

var concurrentCases = []testCase{
	{"concurrent-sync", func(t *try) {
		g := t.guest(guestSpec{started: true, vcpus: 2})
		t.primary(g, 30000, 30000)
		t.hammer(g, hammerTime, []syscall.Errno{syscall.EBUSY, syscall.EAGAIN, syscall.EILSEQ, syscall.EINVAL},
			status, syncRelease, syncRelease, func(r *raw, _ int) syscall.Errno {
				return r.op(opTap, 0, 1, uint32(kemariop.TapHold))
			})
		t.want("disable", g.disable(), 0)
		before := t.cpuTime(g)
		t.eventually("a running guest", waitLong, func() bool { return t.cpuTime(g) > before })
	}},
	{"concurrent-enable", func(t *try) {
		g := t.guest(guestSpec{started: true, vcpus: 2})
		enable := func(r *raw, _ int) syscall.Errno {
			if errno := r.enable(primary, 3000, 2000); errno != 0 {
				return errno
			}
			return r.disable()
		}
		t.hammer(g, hammerTime, []syscall.Errno{syscall.EBUSY, syscall.EAGAIN, syscall.EILSEQ, syscall.EINVAL, syscall.ENODEV},
			status, enable, enable, syncRelease, func(_ *raw, _ int) syscall.Errno {
				m, err := t.fm.MapResource(g.dom, kemariop.ResourceKemari, 0, 0, 3, false)
				if err != nil {
					return syscall.ENODEV
				}
				m.Close()
				return 0
			})
		g.disable() // whoever came last may have lost to a sync
		equal(t, "state", t.state(g), 0)
		before := t.cpuTime(g)
		t.eventually("a running guest", waitLong, func() bool { return t.cpuTime(g) > before })
	}},
	{"concurrent-destroy", func(t *try) {
		g := t.guest(guestSpec{started: true, vcpus: 2})
		t.want("enable", g.enable(primary, 30000, 30000), 0)
		go func() {
			time.Sleep(hammerTime / 4)
			xl("destroy", g.name)
		}()
		t.hammer(g, hammerTime, []syscall.Errno{syscall.EBUSY, syscall.EAGAIN, syscall.EILSEQ, syscall.EINVAL, syscall.ENODEV, syscall.ESRCH},
			status, syncRelease, syncRelease)
		t.eventually("a domain that has vanished", waitLong, func() bool {
			_, err := t.ctl.DomainInfo(g.dom)
			return isErrno(err, syscall.ESRCH)
		})
	}},
}
