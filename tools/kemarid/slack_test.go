// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSlacken: all threads have the slack, also one that is made afterwards.
func TestSlacken(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("root may set other threads' timer slack")
	}
	if err := slacken(); err != nil {
		t.Fatal(err)
	}
	done := make(chan string)
	for range 20 { // more than there are threads
		go func() {
			runtime.LockOSThread() // and so ends with it
			slack, err := os.ReadFile("/proc/" + strconv.Itoa(unix.Gettid()) + "/timerslack_ns")
			if err != nil {
				t.Error(err)
			}
			done <- strings.TrimSpace(string(slack))
		}()
	}
	for range 20 {
		if got := <-done; got != strconv.FormatInt(timerSlack.Nanoseconds(), 10) {
			t.Errorf("timer slack of a thread: %s ns", got)
		}
	}
}
