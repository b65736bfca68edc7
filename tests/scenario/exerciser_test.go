// SPDX-License-Identifier: Apache-2.0

//go:build lab

package scenario

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/kemari-ft/kemari/tools/lab/lab"
)

// TestExerciser tries every operation of the hypervisor's interface, with its
// errors and edges, on a debug build of Xen: see tests/exerciser. Two hosts share
// the cases, and each has two CPUs, so that operations meet each other.
func TestExerciser(t *testing.T) {
	ctx := t.Context()
	_, hosts := start(ctx, t, lab.Config{
		SMP: 2, Tools: []string{module + "tests/exerciser"},
		Files: map[string]string{"guest/initrd.img": demoGuest(ctx, t), "guest/small": smallKernel(ctx, t)},
	}, "a", "b")
	list, err := hosts[0].Run(ctx, "exerciser", "-list")
	if err != nil {
		t.Fatal(err)
	}
	cases := strings.Fields(list)
	next := make(chan string, len(cases))
	for _, c := range cases {
		next <- c
	}
	close(next)
	var passed atomic.Int32
	var wg sync.WaitGroup
	for _, h := range hosts {
		wg.Go(func() {
			for c := range next {
				if exercise(ctx, t, h, c) {
					passed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d of %d cases passed", passed.Load(), len(cases))
}

// exercise tries one case on a host, and reports whether it was tried and passed.
func exercise(ctx context.Context, t *testing.T, h *lab.Host, name string) bool {
	call, err := h.Start(nil, "exerciser", "-run", "^"+name+"$")
	if err != nil {
		t.Errorf("host %s, %s: %v", h.Name, name, err)
		return false
	}
	out := &lines{t: t, who: h.Name}
	var errOut bytes.Buffer
	status, err := call.Wait(ctx, out, &errOut)
	if err != nil || status.Code != 0 {
		t.Errorf("host %s, %s: status %d, %v: %s", h.Name, name, status.Code, err, errOut.String())
		return false
	}
	return strings.Contains("\n"+out.all.String(), "\nok "+name+"\n")
}
