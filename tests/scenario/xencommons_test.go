// SPDX-License-Identifier: Apache-2.0

//go:build lab

package scenario

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kemari-ft/kemari/tests/pair"
	"github.com/kemari-ft/kemari/tools/lab/lab"
	"github.com/kemari-ft/kemari/toolstack/control"
)

// xencommons starts and stops kemarid of a host by Xen's init script, as the series
// leaves it. What else the script starts runs already: in its place stands something
// that tells its name.
func xencommons(ctx context.Context, t *testing.T, p *pair.Pair, h *lab.Host) {
	t.Helper()
	src, err := pair.XenSource(ctx, func(s string) { t.Log(s) })
	if err != nil {
		t.Fatal(err)
	}
	in, err := os.ReadFile(filepath.Join(src, "tools/hotplug/Linux/init.d/xencommons.in"))
	if err != nil {
		t.Fatal(err)
	}
	script := strings.NewReplacer("@LINUX_BACKEND_MODULES@", "", "@XEN_SCRIPT_DIR@", "/run/xc", "@qemu_xen_path@", "/run/xc/qemu",
		"@XEN_RUN_DIR@", "/run/xc", "@CONFIG_DIR@/@CONFIG_LEAF_DIR@", "/run/xc/default").Replace(string(in))
	shell := func(script string) string {
		t.Helper()
		out, err := h.Shell(ctx, "exec 2>&1\n"+script)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return out
	}
	shell("mkdir -p /run/xc/default")
	if err := h.PushFrom(ctx, strings.NewReader(script), "/run/xc/init", 0o755); err != nil {
		t.Fatal(err)
	}
	ended := "for i in $(seq 30); do pidof kemarid >/dev/null || break; sleep 0.1; done; ! pidof kemarid"
	shell(`cd /run/xc
echo 'sbindir=/run/xc LIBEXEC_BIN=/run/xc XEN_RUN_DIR=/run/xc XEN_LOCK_DIR=/run/xc XEN_LOG_DIR=/run/xc' >hotplugpath.sh
for f in launch-xenstore xen-init-dom0 xenconsoled qemu; do printf '#!/bin/sh\necho %s\n' $f >$f; chmod +x $f; done
kill $(pidof kemarid); ` + ended)

	if out := shell("/run/xc/init start; ! pidof kemarid"); strings.Contains(out, "kemarid") {
		t.Errorf("nobody has asked for kemarid:\n%s", out)
	}
	// Of a session of its own: what ends with the one that called the script is not it.
	out := shell(`echo XENKEMARID=$(command -v kemarid) >/run/xc/default/xencommons; /run/xc/init start
for i in $(seq 100); do kemari status >/dev/null 2>&1 && break; sleep 0.1; done; kemari status && cd /run/xc &&
pid=$(cat kemarid.pid) && test "$pid" = "$(pidof kemarid)" && test "$pid" = "$(cut -d' ' -f6 /proc/$pid/stat)" && echo as its own`)
	if at := strings.Index(out, "Starting kemarid"); at < strings.Index(out, "qemu\n") || !strings.Contains(out, "as its own") {
		t.Errorf("kemarid is not started last, or not by itself:\n%s", out)
	}
	// One that is killed leaves its socket.
	out = shell("/run/xc/init stop; ! pidof kemarid && ! test -e /run/xc/kemarid.pid && ! test -e " + control.Socket + " && cat /run/xc/kemarid.log")
	if at := strings.Index(out, "Stopping kemarid"); at < 0 || at > strings.Index(out, "Stopping xenconsoled") || strings.Contains(out, "[ERROR]") {
		t.Errorf("kemarid is not stopped first, or not in peace:\n%s", out)
	}
	if err := p.StartDaemon(ctx, h); err != nil {
		t.Fatal(err)
	}
}
