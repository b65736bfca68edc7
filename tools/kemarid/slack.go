// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"strconv"
	"time"
)

// timerSlack is by how much the kernel may delay what sleeps in this process. It
// is much less than what heartbeats and intervals are measured in.
const timerSlack = 5 * time.Millisecond

// slacken sets the timer slack of all threads; those to come have that of the
// thread which makes them (see timerslack_ns in proc(5)).
//
// As long as anything runs, a thread of Go's own (sysmon in runtime/proc.go) looks
// after it every 20 us at first. In a pause of some milliseconds it wakes up all
// the time, and takes the processor from whatever is in a system call just then,
// which is most of what a pause consists of.
func slacken() error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		slack := strconv.FormatInt(timerSlack.Nanoseconds(), 10)
		// Each thread has a directory there that is not listed.
		if err := os.WriteFile("/proc/"+t.Name()+"/timerslack_ns", []byte(slack), 0); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("setting the timer slack: %w", err)
		}
	}
	return nil
}
