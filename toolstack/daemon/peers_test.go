// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/kemari-ft/kemari/toolstack/config"
	"github.com/kemari-ft/kemari/toolstack/host"
	"github.com/kemari-ft/kemari/toolstack/link"
	"github.com/kemari-ft/kemari/toolstack/secondary/hosttest"
	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/toolstack/transport"
	"github.com/kemari-ft/kemari/xen/kemariop"
)

// TestPeerGivesEveryReason: a host that cannot take a guest says why, all of it,
// before there is a guest.
func TestPeerGivesEveryReason(t *testing.T) {
	dom := hosttest.New(t, uuid.New(), "web", false, kemariop.RoleNone)
	dom.Host.Config = config.Default()
	dom.Host.Identity = host.Identity{UUID: uuid.New(), CPUVendor: "AuthenticAMD", XenVersion: "4.20.0"}
	d := &Daemon{host: dom.Host} // whose xenstored knows no control command
	tr, err := transport.New("kemari:unix:"+filepath.Join(t.TempDir(), "s"), nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tr.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err == nil {
			_ = d.greet(link.New(c))
		}
	}()
	other := host.Identity{UUID: uuid.New(), CPUVendor: "GenuineIntel", XenVersion: "4.19.2"}
	hello := other.Hello(stream.Primary, uuid.Nil, 0)
	reasons, err := askPeer(t.Context(), tr, &hello)
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(reasons, "\n")
	for _, want := range []string{"oxenstored", "CPU vendor", "Xen version"} {
		if !strings.Contains(all, want) {
			t.Errorf("nothing is said of %s:\n%s", want, all)
		}
	}
}

// TestCheckGivesEveryReason: a peer that this host could not fence is asked all the
// same what it has to say; none is asked if none is named.
func TestCheckGivesEveryReason(t *testing.T) {
	d := aDaemon(t)
	d.host.Config.Fence = []string{"/fence"}
	dead := "kemari:unix:" + filepath.Join(t.TempDir(), "s")
	for peer, want := range map[string][]string{
		"":   {"status of d0", "oxenstored", "no peer"},
		dead: {"status of d0", "oxenstored", "what fence_command switches off", "no such file"},
	} {
		got := d.check(t.Context(), peer, nil)
		if !slices.EqualFunc(got, want, strings.Contains) {
			t.Errorf("peer %q: the reasons are %q, want %q", peer, got, want)
		}
	}
}
