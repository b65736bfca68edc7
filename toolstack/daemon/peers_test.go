// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"path/filepath"
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
