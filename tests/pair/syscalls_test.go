// SPDX-License-Identifier: Apache-2.0

package pair

import (
	"fmt"
	"strings"
	"testing"
)

func TestCountSyscalls(t *testing.T) {
	var b strings.Builder
	b.WriteString("# tracer: nop\n#\n")
	call := func(at float64, nr int, arg string) {
		fmt.Fprintf(&b, "         kemarid-512     [000] .....   %.6f: sys_enter: NR %d (7, %s, c000123a80, 0, 0, 0)\n", at, nr, arg)
	}
	const hypercall = "305000"
	call(9.99, 16, hypercall) // the end of a pause that began before
	call(10.00, 202, "80")
	for _, at := range []float64{10.2, 10.4, 10.6} {
		call(at-0.001, 281, "c000") // woken
		call(at, 16, hypercall)
		call(at+0.001, 16, hypercall)
		call(at+0.002, 1, "c000")
		call(at+0.010, 0, "c000")
		call(at+0.015, 16, hypercall)
		call(at+0.016, 16, hypercall) // hot pages
		call(at+0.017, 202, "80")
	}
	call(10.8, 16, hypercall) // nothing to send
	call(10.801, 16, hypercall)
	call(10.9, 16, hypercall)
	call(10.901, 16, "305001") // of another kind
	s, err := CountSyscalls([]byte(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := s.String(), "5.0 in each of 3 pauses: 3.0 ioctl, 1.0 read, 1.0 write"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	b.WriteString("CPU:0 [LOST 12 EVENTS]\n")
	if _, err := CountSyscalls([]byte(b.String())); err == nil {
		t.Error("no error where events were lost")
	}
}
