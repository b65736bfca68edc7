// SPDX-License-Identifier: Apache-2.0

//go:build lab

package scenario

import (
	"bytes"
	"testing"

	"github.com/kemari-ft/kemari/tools/lab/lab"
)

// TestExerciser tries every operation of the hypervisor's interface, with its
// errors and edges, on a debug build of Xen: see tests/exerciser. The host has two
// CPUs, so that operations meet each other.
func TestExerciser(t *testing.T) {
	ctx := t.Context()
	_, hosts := start(ctx, t, lab.Config{
		SMP: 2, Tools: []string{module + "tests/exerciser"},
		Files: map[string]string{"guest/initrd.img": demoGuest(ctx, t)},
	}, "a")
	call, err := hosts[0].Start(nil, "exerciser")
	if err != nil {
		t.Fatal(err)
	}
	var errOut bytes.Buffer
	status, err := call.Wait(ctx, &lines{t: t, who: "exerciser"}, &errOut)
	if err != nil || status.Code != 0 {
		t.Fatalf("exerciser: status %d, %v: %s", status.Code, err, errOut.String())
	}
}
