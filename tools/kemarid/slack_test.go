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

// TestSlackenKeepsMore: whoever starts kemarid with a larger slack keeps it.
func TestSlackenKeepsMore(t *testing.T) {
	const file, more = "/proc/self/timerslack_ns", "5000000"
	had, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(more), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(file, had, 0); err != nil {
			t.Error(err)
		}
	})
	if err := slacken(); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(file); err != nil || strings.TrimSpace(string(got)) != more {
		t.Errorf("timer slack %q, %v; want %s as before", got, err, more)
	}
}
