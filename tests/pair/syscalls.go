// SPDX-License-Identifier: Apache-2.0

package pair

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/kemari-ft/kemari/xen/abi"
)

// TraceSyscalls is a shell script that has dom0's kernel note the system calls of
// all threads of kemarid for some seconds, and prints them. Nothing of it is left.
// See Documentation/trace/ftrace.rst and events.rst in Linux.
const TraceSyscalls = `set -e
cd /sys/kernel/tracing 2>/dev/null && [ -e trace ] || { mount -t tracefs tracefs /sys/kernel/tracing; cd /sys/kernel/tracing; }
echo 4096 >buffer_size_kb
ls /proc/$(pidof kemarid)/task >set_event_pid
echo 1 >events/raw_syscalls/sys_enter/enable
echo >trace
sleep %d
echo 0 >events/raw_syscalls/sys_enter/enable
echo >set_event_pid
cat trace
echo >trace`

// Syscalls is how often each system call was made in the pauses of a guest.
type Syscalls struct {
	Pauses int
	Calls  map[int]int // by number
}

// Each is how many there were in a pause, on average.
func (s Syscalls) Each() float64 {
	n := 0
	for _, c := range s.Calls {
		n += c
	}
	return float64(n) / float64(max(s.Pauses, 1))
}

func (s Syscalls) String() string {
	numbers := slices.SortedFunc(maps.Keys(s.Calls), func(a, b int) int {
		return cmp.Or(s.Calls[b]-s.Calls[a], a-b)
	})
	var parts []string
	for _, nr := range numbers {
		parts = append(parts, fmt.Sprintf("%.1f %s", float64(s.Calls[nr])/float64(max(s.Pauses, 1)), syscallName(nr)))
	}
	return fmt.Sprintf("%.1f in each of %d pauses: %s", s.Each(), s.Pauses, strings.Join(parts, ", "))
}

func syscallName(nr int) string {
	switch nr {
	case syscall.SYS_READ:
		return "read"
	case syscall.SYS_WRITE:
		return "write"
	case syscall.SYS_PREAD64:
		return "pread64"
	case syscall.SYS_IOCTL:
		return "ioctl"
	case syscall.SYS_FUTEX:
		return "futex"
	case syscall.SYS_EPOLL_PWAIT:
		return "epoll_pwait"
	case syscall.SYS_NANOSLEEP:
		return "nanosleep"
	case syscall.SYS_GETRUSAGE:
		return "getrusage"
	}
	return fmt.Sprintf("number %d", nr)
}

// entered matches a line of the kernel's trace about the event sys_enter:
//
//	kemarid-512     [000] .....   77.123456: sys_enter: NR 16 (7, 305000, c000123a80, 0, 0, 0)
var entered = regexp.MustCompile(`\s(\d+\.\d+): sys_enter: NR (-?\d+) \([0-9a-f]+, ([0-9a-f]+),`)

// apart is less than what passes between the end of a pause and the next one, in
// seconds, and more than between two hypercalls of one.
const apart = 0.06

// CountSyscalls counts in what TraceSyscalls printed. A pause lasts from its first
// hypercall, which freezes, to its third, which releases; one in which there is
// nothing to send has two, and does not count.
func CountSyscalls(trace []byte) (Syscalls, error) {
	s := Syscalls{Calls: map[int]int{}}
	hypercalls, last := 4, -1.0
	var inside []int // since the first hypercall
	for lines := bufio.NewScanner(bytes.NewReader(trace)); lines.Scan(); {
		if strings.Contains(lines.Text(), "LOST") {
			return s, fmt.Errorf("the kernel's trace has lost events: %s", lines.Text())
		}
		m := entered.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		at, err1 := strconv.ParseFloat(m[1], 64)
		nr, err2 := strconv.Atoi(m[2])
		cmd, err3 := strconv.ParseUint(m[3], 16, 64)
		if err := cmp.Or(err1, err2, err3); err != nil {
			return s, fmt.Errorf("the kernel's trace: %w: %s", err, lines.Text())
		}
		if last < 0 {
			last = at // the trace may begin amid a pause
		}
		if nr == syscall.SYS_IOCTL && cmd == abi.IoctlPrivcmdHypercall {
			if at-last > apart {
				hypercalls, inside = 0, nil
			}
			hypercalls++
			last = at
		}
		if hypercalls > 0 && hypercalls <= 3 {
			inside = append(inside, nr)
		}
		if hypercalls == 3 && len(inside) > 0 {
			s.Pauses++
			for _, nr := range inside {
				s.Calls[nr]++
			}
			hypercalls, inside = 4, nil // what follows is after the pause
		}
	}
	return s, nil
}
