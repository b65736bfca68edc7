// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kemari-ft/kemari/tools/lab/nbd"
)

// TestTwoHosts boots two hosts and uses everything that a scenario uses. It
// takes a minute, and longer when the cache is empty.
func TestTwoHosts(t *testing.T) {
	if os.Getenv("LAB") == "" {
		t.Skip("boots hosts in QEMU; set LAB=1")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	l, err := New(ctx, Config{Dir: t.TempDir(), Log: func(s string) { t.Log(s) }})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	hosts, err := l.Boot("a", "b")
	if err != nil {
		t.Fatal(err)
	}
	a, b := hosts[0], hosts[1]
	run := func(h *Host, script string) string {
		t.Helper()
		out, err := h.Shell(ctx, script)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}

	run(a, "xl list | grep Domain-0")
	run(a, "ping -c 2 b && ping -c 2 b-mgmt")
	l.Net("repl").Partition("a", "b")
	run(a, "! ping -c 1 -W 2 b && ping -c 1 b-mgmt")
	l.Net("repl").Heal()
	run(a, "ping -c 1 -W 5 b")

	// What a wrote and was answered for is on b's disk without a flush.
	run(a, "echo from a | dd of=/dev/lun/lun0 bs=512 conv=sync oflag=direct")
	if got := run(b, "dd if=/dev/lun/lun0 bs=512 count=1 iflag=direct | head -c 6"); got != "from a" {
		t.Errorf("b read %q", got)
	}

	// Writes side by side are logged as they were made.
	mark := len(l.LUN("lun0").Log())
	run(a, "for i in $(seq 40); do for s in 100 101 102 103; do dd if=/dev/zero of=/dev/lun/lun0 bs=512 count=1 seek=$s oflag=direct 2>/dev/null & done; wait; done")
	for _, e := range l.LUN("lun0").Log()[mark:] {
		if e.Op == nbd.Write && e.Length != 512 {
			t.Fatalf("writes were merged: %d octets at %#x", e.Length, e.Offset)
		}
	}

	// A guest.
	run(a, "xl create /opt/kemari/guest/tick.cfg")
	run(a, "i=0; until grep 'tick 2' /var/log/xen/guest-tick.log; do i=$((i+1)); [ $i -lt 120 ] || exit 1; sleep 1; done")
	if keys, err := a.Console().DebugKeys(ctx, "q"); err != nil || !strings.Contains(keys, "domain 1") {
		t.Errorf("debug key q printed %q, %v", keys, err)
	}

	// A power cut with a write under way, fenced by the other host.
	hold := l.LUN("lun0").Add(&nbd.Rule{Match: nbd.Match{Host: "a", Ops: []nbd.Op{nbd.Write}}, Hold: true})
	if _, err := a.Start(nil, "sh", "-c", "echo late | dd of=/dev/lun/lun0 bs=512 conv=sync oflag=direct"); err != nil {
		t.Fatal(err)
	}
	if err := hold.Taken(ctx, 1); err != nil {
		t.Fatal(err)
	}
	a.Cut()
	fence, err := b.Start(nil, "lab-fence", "a")
	if err != nil {
		t.Fatal(err)
	}
	if got := run(b, "dd if=/dev/lun/lun0 bs=512 count=1 iflag=direct | head -c 6"); got != "from a" {
		t.Errorf("before the held write b read %q", got)
	}
	hold.Release()
	hold.Remove()
	if status, err := fence.Wait(ctx, nil, nil); err != nil || status.Check() != nil {
		t.Fatalf("lab-fence: %+v, %v", status, err)
	}
	if got := run(b, "lab-fence --status a; dd if=/dev/lun/lun0 bs=512 count=1 iflag=direct | head -c 4"); got != "off\nlate" {
		t.Errorf("after the fence b saw %q", got)
	}
	if _, err := a.Run(ctx, "true"); err == nil {
		t.Error("a dead host ran a command")
	}

	// And it comes back.
	if _, err := l.Boot("a"); err != nil {
		t.Fatal(err)
	}
	run(b, "ping -c 1 -W 5 a")
}
