// SPDX-License-Identifier: Apache-2.0

package primary

import (
	"bytes"
	"os"
	"syscall"

	"github.com/kemari-ft/kemari/xen/privcmd"
)

// counts are what the process has done since it began.
type counts struct{ hypercalls, wakeups, readsWrites uint64 }

// counters read counts. Those of the kernel are a system call each, and
// nothing is allocated.
type counters struct {
	hypercalls *privcmd.Handle
	io         *os.File // /proc/self/io, nil if the kernel has none
	usage      syscall.Rusage
	text       [512]byte
	reads      uint64 // of io, which count themselves
}

func newCounters(h *privcmd.Handle) counters {
	c := counters{hypercalls: h}
	// Without CONFIG_TASK_IO_ACCOUNTING there is no such file.
	c.io, _ = os.Open("/proc/self/io")
	return c
}

func (c *counters) close() {
	if c.io != nil {
		_ = c.io.Close()
	}
	c.io = nil
}

func (c *counters) read() (n counts) {
	if c.hypercalls != nil {
		n.hypercalls = c.hypercalls.Calls()
	}
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &c.usage) // fails for bad arguments only
	n.wakeups = uint64(c.usage.Nvcsw)
	if c.io == nil {
		return n
	}
	// File.ReadAt would read again for the end of the file.
	size, err := syscall.Pread(int(c.io.Fd()), c.text[:], 0)
	if err != nil {
		c.close()
		return n
	}
	n.readsWrites = field(c.text[:size], "syscr: ") + field(c.text[:size], "syscw: ") - c.reads
	c.reads++ // the kernel counts a read at its end
	return n
}

// field is the number behind a name in /proc/self/io: see do_io_accounting() in
// the kernel's fs/proc/base.c.
func field(text []byte, name string) (n uint64) {
	at := bytes.Index(text, []byte(name))
	if at < 0 {
		return 0
	}
	for _, c := range text[at+len(name):] {
		if c < '0' || c > '9' {
			break
		}
		n = n*10 + uint64(c-'0')
	}
	return n
}
