// SPDX-License-Identifier: Apache-2.0

//go:build lab

package scenario

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/kemari-ft/kemari/tests/pair"
	"github.com/kemari-ft/kemari/tools/lab/lab"
	"github.com/kemari-ft/kemari/toolstack/control"
)

// refusedConf is a guest for which only its name and, if any, more lines are amiss.
const refusedConf = `type = "pvh"
name = "%s"
memory = 96
max_grant_version = 1
kernel = "` + small + `"
ramdisk = "/opt/kemari/guest/demo.img"
extra = "console=hvc0 quiet"
%s
`

// refusals: a guest that cannot be protected is not started, of it nothing is left on
// either host, and whoever starts it is told every reason at once.
func refusals(ctx context.Context, t *testing.T, p *pair.Pair) {
	t.Helper()
	push := func(h *lab.Host, name, more string) string {
		t.Helper()
		file := "/etc/xen/" + name + ".cfg"
		if err := h.PushFrom(ctx, strings.NewReader(fmt.Sprintf(refusedConf, name, more)), file, 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	// On b a guest that never runs takes a name, and memory until there is too little
	// for another one.
	out, err := p.B().Run(ctx, "xl", "info", "free_memory")
	if err != nil {
		t.Fatal(err)
	}
	free, err := strconv.Atoi(strings.TrimSpace(out))
	if err != nil || free < 160 {
		t.Fatalf("host b has %q MiB free, %v", out, err)
	}
	if out, err := p.B().Run(ctx, "xl", "create", "-p", push(p.B(), "taken", fmt.Sprintf("memory = %d", free-64))); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	before := map[*lab.Host]string{}
	for _, h := range []*lab.Host{p.A(), p.B()} {
		if before[h], err = h.Shell(ctx, domains); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name, more string
		reasons    []string
	}{
		{"taken", `ft = "kemari"`, []string{"the name taken is in use on this host", "MiB are free on this host"}},
		{"large", `ft = "kemari"`, []string{"xl restore", "MiB are free on this host"}},
		{"astray", "ft = 'kemari'\nft_peer = 'kemari:tcp:10.0.0.2:9'", []string{"is not the one of kemari.conf", "connection refused"}},
		{"vif", "ft = 'kemari'\nvif = [ 'bridge=none' ]\nnomigrate = 1", []string{"vif: devices of this kind", "nomigrate is set"}},
		{"misspelt", "ft = 'kemari'\nftpeer = 'kemari:tcp:10.0.0.2:9'\nft_interval_ms = 5", []string{`unknown key "ftpeer"`, `ft_interval_ms: "5"`}},
	} {
		out, err := p.A().Run(ctx, "xl", "create", push(p.A(), tc.name, tc.more))
		if err == nil {
			t.Errorf("guest %s is started: %s", tc.name, out)
			continue
		}
		said(t, "xl create of guest "+tc.name, out+err.Error(), tc.reasons...)
		for _, h := range []*lab.Host{p.A(), p.B()} {
			// b destroys what there is of the copy once a knows the reasons.
			is, err := h.Shell(ctx, "for i in $(seq 60); do is=$("+domains+"); [ \"$is\" = '"+strings.TrimSpace(before[h])+"' ] && exit; sleep 1; done; xl list; exit 1")
			if err != nil {
				t.Errorf("host %s after guest %s, before it was\n%s%v\n%s", h.Name, tc.name, before[h], err, is)
			}
		}
	}
	if out, err := p.A().Run(ctx, "kemari", "check", push(p.A(), "good", `ft = "kemari"`)); err != nil {
		t.Errorf("kemari check of a guest that can be protected: %v\n%s", err, out)
	}
	if out, err = p.A().Run(ctx, "kemari", "check", push(p.A(), "bad", "ft = 'kemari'\nftpeer = 'x'\nvif = [ '' ]")); err == nil {
		t.Errorf("kemari check of a guest that cannot be protected: %s", out)
	} else {
		said(t, "kemari check", out+err.Error(), `unknown key "ftpeer"`, "network devices (vif) cannot be protected yet")
	}
	if _, err := p.B().Run(ctx, "xl", "destroy", "taken"); err != nil {
		t.Error(err)
	}
}

// domains lists the names of a host's domains.
const domains = "xl list | awk 'NR > 1 { print $1 }' | sort"

// said: all of it.
func said(t *testing.T, who, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("%s does not say %q:\n%s", who, w, text)
		}
	}
}

// notSaved: a protected guest is not written to a file, where a second one of it would
// be, and goes on under protection.
func notSaved(ctx context.Context, t *testing.T, p *pair.Pair, h *lab.Host, g *pair.Guest, before control.Guest) {
	t.Helper()
	out, err := h.Run(ctx, "xl", "save", g.Name, "/var/saved")
	if err == nil {
		t.Fatalf("a protected guest is saved: %s", out)
	}
	said(t, "xl save", out+err.Error(), "is being synchronised with another host", "end its protection before saving")
	if _, err := g.Status(ctx, h); err != nil {
		t.Errorf("after xl save: %v", err)
	}
	after, err := p.WaitState(ctx, h, g.Name, "synchronised after xl save", func(now control.Guest) bool {
		return now.State == before.State && now.Epoch > before.Epoch
	})
	if err != nil {
		t.Error(err)
	} else if after.Generation != before.Generation || after.DomID != before.DomID {
		t.Errorf("after xl save it is %+v, before it was %+v", after, before)
	}
}

// unpatchedXL protects a guest from its creation on where xl does not know of ft.
func unpatchedXL(ctx context.Context, t *testing.T, p *pair.Pair) {
	t.Helper()
	a, g := p.A(), &pair.Guest{Spec: pair.Spec{Name: "plain"}}
	// It is xl that chooses the domid, and it has to be free on both hosts.
	if _, err := a.Shell(ctx, `echo 'domid_policy="random"' >>/etc/xen/xl.conf`); err != nil {
		t.Fatal(err)
	}
	if err := a.PushFrom(ctx, strings.NewReader(fmt.Sprintf(refusedConf, g.Name, `ft = "kemari"`)), "/etc/xen/plain.cfg", 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := a.Run(ctx, "kemari", "create", "/etc/xen/plain.cfg"); err != nil {
		t.Fatalf("%v\n%s\nkemarid on host a:\n%s", err, out, pair.DaemonOutput(a))
	}
	if _, err := p.Protected(ctx, a, g.Name); err != nil {
		t.Error(err)
	}
	destroyProtected(ctx, t, p, a, g)
}
