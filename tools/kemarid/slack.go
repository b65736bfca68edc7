// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// timerSlack is by how much the kernel may delay what sleeps in this process, unless
// it was started with more. More of it makes pauses of many milliseconds shorter, but
// also is for how long a system call that blocks keeps others from running, where dom0
// has few vCPUs.
const timerSlack = time.Millisecond

// slacken sets the timer slack of all threads. Threads to come, and programs that are
// started, inherit it: see PR_SET_TIMERSLACK in prctl(2).
//
// As long as anything runs, a thread of Go's own (sysmon in runtime/proc.go) looks
// after it every 20 us at first. In a pause of some milliseconds it wakes up all
// the time, and takes the processor from whatever is in a system call just then,
// which is most of what a pause consists of.
func slacken() error {
	had, err := os.ReadFile("/proc/self/timerslack_ns")
	if err != nil {
		return err
	}
	if ns, err := strconv.ParseInt(strings.TrimSpace(string(had)), 10, 64); err != nil || ns > timerSlack.Nanoseconds() {
		return err
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	slack := []byte(strconv.FormatInt(timerSlack.Nanoseconds(), 10))
	var errs []error
	for _, t := range threads {
		// Each thread has a directory there that is not listed.
		err := os.WriteFile("/proc/"+t.Name()+"/timerslack_ns", slack, 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ESRCH) { // it has ended
			errs = append(errs, fmt.Errorf("setting the timer slack: %w", err))
		}
	}
	return errors.Join(errs...)
}
