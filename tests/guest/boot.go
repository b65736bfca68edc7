// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// params is what the kernel's command line says.
type params struct {
	tableMiB int
	tick     time.Duration
	disk     string // empty: look for Xen's first disk
}

// parseParams reads guest.* words. With an error it still returns usable params.
func parseParams(cmdline string) (params, error) {
	p := params{tableMiB: 1, tick: time.Second}
	var errs []error
	number := func(key, value string, low, high int) (int, bool) {
		n, err := strconv.Atoi(value)
		if err != nil || n < low || n > high {
			errs = append(errs, fmt.Errorf("%s=%s: not a number from %d to %d", key, value, low, high))
			return 0, false
		}
		return n, true
	}
	for _, word := range strings.Fields(cmdline) {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "guest.table_mib":
			if n, ok := number(key, value, 1, 256); ok {
				p.tableMiB = n
			}
		case "guest.tick_ms":
			if n, ok := number(key, value, 10, 60_000); ok {
				p.tick = time.Duration(n) * time.Millisecond
			}
		case "guest.disk":
			p.disk = value
		default:
			if strings.HasPrefix(key, "guest.") {
				errs = append(errs, fmt.Errorf("%s: known are guest.table_mib, guest.tick_ms and guest.disk", key))
			}
		}
	}
	return p, errors.Join(errs...)
}

func mounts() error {
	for _, m := range []struct{ fstype, dir string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"},
	} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.fstype, m.dir, m.fstype, 0, ""); err != nil && err != unix.EBUSY {
			return fmt.Errorf("mount %s on %s: %w", m.fstype, m.dir, err)
		}
	}
	return nil
}

// loadModules loads what the builder of the initramfs put into dir, in the
// order of the names, which is the order of their dependencies.
func loadModules(dir string) (errs []error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.ko*"))
	if err != nil {
		return []error{err}
	}
	for _, name := range names { // Glob sorts
		if err := loadModule(name); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

func loadModule(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	flags := 0
	if !strings.HasSuffix(name, ".ko") {
		flags = unix.MODULE_INIT_COMPRESSED_FILE // needs CONFIG_MODULE_DECOMPRESS
	}
	// A kernel that knows no modules has built in what it needs.
	if err := unix.FinitModule(int(f.Fd()), "", flags); err != nil && err != unix.EEXIST && err != unix.ENOSYS {
		return fmt.Errorf("load module %s: %w", name, err)
	}
	return nil
}

// findDisk names the disk to write to, or answers "" when the guest has none.
// A front end connects some time after its module was loaded.
func findDisk(asked string) (string, error) {
	name := asked
	if name == "" {
		vbds, err := filepath.Glob("/sys/bus/xen/devices/vbd-*")
		if err != nil || len(vbds) == 0 {
			return "", err
		}
		name = "/dev/xvda"
	}
	const patience = 20 * time.Second
	for start := time.Now(); time.Since(start) < patience; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(name); err == nil {
			return name, nil
		}
	}
	return "", fmt.Errorf("disk %s: did not appear within %v; is its front end's module in the initramfs?", name, patience)
}

// onlineCPUs counts the vCPUs; the guest takes them to be numbered from 0.
func onlineCPUs() (int, error) {
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	n := bytes.Count(raw, []byte("\ncpu"))
	if n == 0 {
		return 0, errors.New("/proc/stat names no CPU")
	}
	return n, nil
}

// pin ties the calling thread to one vCPU.
func pin(vcpu int) error { return pinThread(0, vcpu) }

func pinThread(tid, vcpu int) error {
	var set unix.CPUSet
	set.Set(vcpu)
	if err := unix.SchedSetaffinity(tid, &set); err != nil {
		return fmt.Errorf("tie thread %d to vCPU %d: %w", tid, vcpu, err)
	}
	return nil
}

// pinAll ties every thread there is to one vCPU, and with them those that they
// will start, so that the last vCPU of several is left to the gap meter.
func pinAll(vcpu int) error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range tasks {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			return fmt.Errorf("/proc/self/task: %w", err)
		}
		if err := pinThread(tid, vcpu); err != nil {
			return err
		}
	}
	return nil
}

// background gives the calling thread only what nobody else wants.
func background() error { return schedule(unix.SCHED_IDLE, 0) }

// foreground lets the calling thread run before all others.
func foreground() error { return schedule(unix.SCHED_FIFO, 1) }

func schedule(policy, priority uint32) error {
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: policy, Priority: priority}
	if err := unix.SchedSetAttr(0, &attr, 0); err != nil {
		return fmt.Errorf("take scheduling policy %d: %w", policy, err)
	}
	return nil
}

// pages is zeroed memory outside of Go's heap, aligned to a page.
func pages(n int) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("take %d bytes of memory: %w", n, err)
	}
	return b, nil
}

// table is n zeroed elements outside of Go's heap. T must hold no pointers.
func table[T any](n int) ([]T, error) {
	var t T
	b, err := pages(max(1, n) * int(unsafe.Sizeof(t)))
	if err != nil {
		return nil, err
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&b[0])), n), nil
}
