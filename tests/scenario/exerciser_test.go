// SPDX-License-Identifier: Apache-2.0

//go:build lab

package scenario

import (
	"bytes"
	"fmt"
	"sync"
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
		Files: map[string]string{"guest/initrd.img": demoGuest(ctx, t)},
	}, "a", "b")
	var wg sync.WaitGroup
	for i, h := range hosts {
		wg.Go(func() {
			call, err := h.Start(nil, "exerciser", "-part", fmt.Sprintf("%d/%d", i+1, len(hosts)))
			if err != nil {
				t.Error(err)
				return
			}
			var errOut bytes.Buffer
			status, err := call.Wait(ctx, &lines{t: t, who: h.Name}, &errOut)
			if err != nil || status.Code != 0 {
				t.Errorf("exerciser on host %s: status %d, %v: %s", h.Name, status.Code, err, errOut.String())
			}
		})
	}
	wg.Wait()
}
