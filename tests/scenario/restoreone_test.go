// SPDX-License-Identifier: Apache-2.0

//go:build lab

package scenario

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"sync"
	"testing"

	"github.com/kemari-ft/kemari/tools/lab/lab"
)

const restoreCfg = `name = "restoreone"
type = "pvh"
memory = %d
vcpus = %d
max_grant_version = 1
kernel = "/opt/kemari/guest/%s"
ramdisk = "/opt/kemari/guest/demo.img"
extra = "console=hvc0 quiet guest.tick_ms=1000"
on_crash = "preserve"
tsc_mode = "%s"
`

// TestRestoreOne is the proof of the principle: guests with one and two vCPUs,
// on a debug build of Xen, are synchronised once, destroyed and go on in a
// domain of the same domid, ROUNDS times in all; a tenth of the rounds catches
// a guest while it boots. The guest with one vCPU has Debian's kernel and a TSC that
// Xen emulates, the other one the small kernel and the host's TSC. At the end one is
// saved on each host and goes on on the other, whose uptime is higher in one case and
// lower in the other.
func TestRestoreOne(t *testing.T) {
	rounds := number(t, "ROUNDS", 200)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	files := map[string]string{"guest/demo.img": demoGuest(ctx, t), "guest/small": smallKernel(ctx, t)}
	for i, g := range []struct {
		kernel, tsc string
		mib         int
	}{{"vmlinux", "always_emulate", 96}, {"small", "native", smallMiB}} {
		files[fmt.Sprintf("guest/vcpus%d.cfg", i+1)] = writeFile(t, "cfg", fmt.Sprintf(restoreCfg, g.mib, i+1, g.kernel, g.tsc))
	}
	l, hosts := start(ctx, t, lab.Config{Tools: []string{module + "tests/restoreone"}, Files: files}, "a")
	var wg sync.WaitGroup
	var reports [2]string
	var errs [2]error
	begin := func(i, n int) {
		h, boot := hosts[i], (n+9)/10
		wg.Go(func() {
			reports[i], errs[i] = loop(ctx, t, h, i+1, n-boot, boot, i)
		})
	}
	begin(0, rounds-rounds/2)
	more, err := l.Boot("b") // later, so that its uptime is lower
	if err == nil {
		hosts = append(hosts, more...)
		begin(1, rounds/2)
	}
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
	restored := 0
	for i := range hosts {
		if errs[i] != nil {
			t.Errorf("host %s: %v", hosts[i].Name, errs[i])
		}
		if m := regexp.MustCompile(`restored (\d+) of`).FindStringSubmatch(reports[i]); m != nil {
			n, _ := strconv.Atoi(m[1])
			restored += n
		}
	}
	t.Logf("restored %d of %d", restored, rounds)
	if t.Failed() {
		return
	}
	// Both are saved before one is restored: they may have the same domid.
	dir := t.TempDir()
	for _, phase := range []func(context.Context, *testing.T, int, *lab.Host, *lab.Host, string) error{saveAcross, restoreAcross} {
		for i := range hosts {
			wg.Go(func() {
				errs[i] = phase(ctx, t, i+1, hosts[i], hosts[1-i], fmt.Sprintf("%s/%d.stream", dir, i))
			})
		}
		wg.Wait()
		for i, err := range errs {
			if err != nil {
				t.Fatalf("from %s to %s: %v", hosts[i].Name, hosts[1-i].Name, err)
			}
		}
	}
}

func loop(ctx context.Context, t *testing.T, h *lab.Host, vcpus, rounds, boot, seed int) (string, error) {
	call, err := h.Start(nil, "restoreone", "loop",
		"-cfg", fmt.Sprintf("/opt/kemari/guest/vcpus%d.cfg", vcpus),
		"-rounds", strconv.Itoa(rounds), "-boot", strconv.Itoa(boot), "-seed", strconv.Itoa(seed))
	if err != nil {
		return "", err
	}
	out := &lines{t: t, who: fmt.Sprintf("%s, %d vCPU(s)", h.Name, vcpus)}
	var errOut bytes.Buffer
	status, err := call.Wait(ctx, out, &errOut)
	if err == nil && status.Code != 0 {
		err = fmt.Errorf("restoreone: status %d: %s", status.Code, errOut.String())
	}
	return out.all.String(), err
}

// saveAcross saves a guest on one host, to let it go on on another.
func saveAcross(ctx context.Context, t *testing.T, vcpus int, from, _ *lab.Host, local string) error {
	script := fmt.Sprintf("set -e\nxl create /opt/kemari/guest/vcpus%d.cfg >/dev/null", vcpus) + `
n=0
until grep -q "^tick 2 " /var/log/xen/guest-restoreone.log; do
	sleep 1; n=$((n+1)); test $n -lt 120
done
D=$(xl domid restoreone)
restoreone save $D /run/across.stream
echo domid $D`
	if _, err := from.Shell(ctx, "rm -f /var/log/xen/guest-restoreone*"); err != nil {
		return err
	}
	out, err := from.Shell(ctx, script)
	if err != nil {
		return err
	}
	t.Logf("host %s: %s", from.Name, out)
	if err := from.Pull(ctx, "/run/across.stream", local); err != nil {
		return err
	}
	// What a real guest comes to is what docs/stream.md says.
	said, err := exec.CommandContext(ctx, "go", "run", module+"tools/streamverify", local).CombinedOutput()
	if err != nil {
		return fmt.Errorf("the stream of the guest of host %s: %w: %s", from.Name, err, said)
	}
	t.Logf("host %s: %s", from.Name, bytes.TrimSpace(said))
	// /run is memory, and no more of it than these files need.
	_, err = from.Shell(ctx, "rm -f /run/*.stream")
	return err
}

// restoreAcross lets it go on there.
func restoreAcross(ctx context.Context, t *testing.T, _ int, _, to *lab.Host, local string) error {
	if err := to.Push(ctx, local, "/run/across.stream"); err != nil {
		return err
	}
	out, err := to.Shell(ctx, `set -e
rm -f /var/log/xen/guest-restoreone--kemari.log
uptime=$(cut -d' ' -f1 /proc/uptime)
restoreone restore /run/across.stream
n=0
until [ $(grep -c "^tick " /var/log/xen/guest-restoreone--kemari.log 2>/dev/null) -ge 3 ]; do
	sleep 1; n=$((n+1)); test $n -lt 60
done
grep "^tick " /var/log/xen/guest-restoreone--kemari.log | head -n 3
echo host up for $uptime s
xl destroy restoreone`)
	t.Logf("host %s: %s", to.Name, out)
	return err
}
