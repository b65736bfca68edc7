// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"syscall"
	"time"
)

// testCase is one case. What f makes it registers with try.later.
type testCase struct {
	name string
	f    func(t *try)
}

// try is one run of a case. Its methods must not be called concurrently.
type try struct {
	*host
	bad     []string
	skipped string
	undo    []func()
}

// stop ends a case early.
type stop struct{}

func (c testCase) try(h *host) (bad []string, skipped string) {
	t := &try{host: h}
	func() {
		defer func() {
			if r := recover(); r != nil && r != (stop{}) {
				panic(r)
			}
		}()
		c.f(t)
	}()
	for i := len(t.undo) - 1; i >= 0; i-- {
		t.undo[i]()
	}
	return t.bad, t.skipped
}

// later runs f when the case is over.
func (t *try) later(f func()) { t.undo = append(t.undo, f) }

func (t *try) fail(format string, args ...any) { t.bad = append(t.bad, fmt.Sprintf(format, args...)) }

func (t *try) skip(reason string) {
	t.skipped = reason
	panic(stop{})
}

// must ends the case if what cannot fail did.
func (t *try) must(err error) {
	if err != nil {
		t.fail("got %v, want success", err)
		panic(stop{})
	}
}

func isErrno(err error, e syscall.Errno) bool { return errors.Is(err, e) }

func answer(e syscall.Errno) string {
	if e == 0 {
		return "success"
	}
	return fmt.Sprintf("errno %d (%s)", int(e), e.Error())
}

// want compares an answer of Xen.
func (t *try) want(what string, got, want syscall.Errno) {
	if got != want {
		t.fail("%s: got %s, want %s", what, answer(got), answer(want))
	}
}

// wantErr compares an answer that came as an error.
func (t *try) wantErr(what string, err error, want syscall.Errno) {
	var got syscall.Errno
	if err != nil && !errors.As(err, &got) {
		t.fail("%s: got %v, want %s", what, err, answer(want))
		return
	}
	t.want(what, got, want)
}

// equal compares values.
func equal[T comparable](t *try, what string, got, want T) {
	if got != want {
		t.fail("%s: got %v, want %v", what, got, want)
	}
}

// eventually waits for a condition.
func (t *try) eventually(what string, within time.Duration, cond func() bool) bool {
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if cond() {
			return true
		}
	}
	t.fail("got nothing within %v, want %s", within, what)
	return false
}
