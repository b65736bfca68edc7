// SPDX-License-Identifier: Apache-2.0

package config

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/kemari-ft/kemari/toolstack/xlcfg"
)

const examples = "../../docs/examples/"

// TestExamples: what we give the operator to copy has to work.
func TestExamples(t *testing.T) {
	h, err := LoadHost(examples + "kemari.conf")
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Peer = URI{"tcp", "192.0.2.2:7460"}
	want.Listen = URI{"tcp", "192.0.2.1:7460"}
	want.HeartbeatSecond = "198.51.100.2:7461"
	want.Fence = strings.Fields("/etc/xen/scripts/fence-ipmi 203.0.113.2 kemari /etc/xen/kemari/ipmi.pw")
	if diff := cmp.Diff(want, h); diff != "" {
		t.Errorf("kemari.conf differs from the defaults (-want +got):\n%s", diff)
	}

	f, err := xlcfg.Load(examples + "guest.cfg")
	if err != nil {
		t.Fatal(err)
	}
	g, err := ParseGuest(f, h)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&Guest{URI{"tcp", "192.0.2.2:7460"}, time.Second}, g); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestHostWithoutFile(t *testing.T) {
	h, err := LoadHost(t.TempDir() + "/kemari.conf")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Default(), h); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestHostErrors: file, line and what is allowed, all at once.
func TestHostErrors(t *testing.T) {
	_, err := ParseHost("kemari.conf", []byte(strings.Join([]string{
		`peer = "tcp:1.2.3.4:5"`,
		`heartbeat_interval = 500`,
		`heartbeat_misses = 1`,
		`fence_command = "ipmitool off"`,
		`listen = "kemari:tcp:host"`,
		`key = "key.pem"`,
		`dirty_pages = [ 1 ]`,
		`detach_wait_ms = 0x10`,
	}, "\n")))
	want := strings.Join([]string{
		`kemari.conf:1: peer: "tcp:1.2.3.4:5": not a URI of Kemari; allowed: ` + uriForms,
		`kemari.conf:2: unknown key "heartbeat_interval"; allowed: cert, detach_wait_ms, dirty_pages, fence_command, heartbeat_interval_ms, heartbeat_misses, heartbeat_second, key, listen, peer, peer_cert`,
		`kemari.conf:3: heartbeat_misses: "1"; allowed: a number from 2 to 100`,
		`kemari.conf:4: fence_command: allowed: a list of strings, ["/path/of/program", "argument", ...]`,
		`kemari.conf:5: listen: "kemari:tcp:host": "host" is not HOST:PORT; allowed: ` + uriForms,
		`kemari.conf:6: key: "key.pem"; allowed: an absolute path without . or ..`,
		`kemari.conf:7: dirty_pages: expected a string, not a list`,
		`kemari.conf:8: detach_wait_ms: "0x10"; allowed: a number from 0 to 3600000`,
	}, "\n")
	if err == nil {
		t.Fatal("no error")
	}
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestHostContradictions(t *testing.T) {
	for src, want := range map[string]string{
		"peer=\"kemari:tcp:a:1\"\nlisten=\"kemari:tcp:a:1\"": "kemari.conf:1: peer: kemari:tcp:a:1 is this host's own address (listen, line 2)",
		"peer=\"kemari:tcp:a:1\"\nheartbeat_second=\"a:2\"":  "kemari.conf:2: heartbeat_second: a is the replication link (peer, line 1); a second path needs the peer's address on another network",
	} {
		if _, err := ParseHost("kemari.conf", []byte(src)); err == nil || err.Error() != want {
			t.Errorf("%q:\n got %v\nwant %s", src, err, want)
		}
	}
}

func parseGuest(t *testing.T, src string, h *Host) (*Guest, error) {
	t.Helper()
	f, err := xlcfg.Parse("g.cfg", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	return ParseGuest(f, h)
}

func TestGuest(t *testing.T) {
	h := Default()
	h.Peer = URI{"unix", "/run/peer"}
	const pvh = "type='pvh'\nmemory=128\nmaxmem=128\nnestedhvm=0\nvif=[]\n"
	if g, err := parseGuest(t, pvh, h); g != nil || err != nil {
		t.Errorf("guest without ft: %v %v", g, err)
	}
	if g, err := parseGuest(t, pvh+"ft='kemari'", h); err != nil || *g != (Guest{h.Peer, time.Second}) {
		t.Errorf("default peer: %v %v", g, err)
	}
	g, err := parseGuest(t, pvh+"ft='kemari'\nft_peer='kemari:vsock:2:99'\nft_interval_ms=40", h)
	if err != nil || *g != (Guest{URI{"vsock", "2:99"}, 40 * time.Millisecond}) {
		t.Errorf("own peer: %v %v", g, err)
	}
}

func TestGuestErrors(t *testing.T) {
	for _, tc := range []struct{ name, src, want string }{
		{"all at once", "ft='remus'\nft_perr='x'\nft_interval_ms=5\nvif=['']\ntype='hvm'\nmemory=1\nmaxmem=2\ndisk=['phy:/dev/x,xvda,w','a.qcow2,qcow2,xvdb,w']\nmax_grant_version=2",
			`g.cfg:1: ft: "remus"; allowed: "kemari"
g.cfg:2: unknown key "ft_perr"; allowed: ft, ft_interval_ms, ft_peer
g.cfg:3: ft_interval_ms: "5"; allowed: a number from 10 to 60000
g.cfg:1: ft: no peer; set ft_peer here or peer in /etc/xen/kemari.conf (` + uriForms + `)
g.cfg:4: vif contradicts ft (line 1): network devices (vif) cannot be protected yet
g.cfg:5: ft needs type = "pvh"
g.cfg:7: maxmem contradicts ft (line 1): a ballooned guest cannot be protected; make it equal to memory (line 6)
g.cfg:9: max_grant_version contradicts ft (line 1); allowed: 1
g.cfg:8: disk contradicts ft (line 1): "a.qcow2,qcow2,xvdb,w": only the format raw can be protected`},
		{"what xl refuses, too", "ft='kemari'\nft_peer='kemari:unix:/a'\ntype='pvh'\nhap=0\nnomigrate=1\npassthrough='disabled'\nmax_event_channels=4096",
			`g.cfg:5: nomigrate contradicts ft (line 1): it goes to another host
g.cfg:4: hap=0 contradicts ft (line 1): hardware assisted paging is needed
g.cfg:7: max_event_channels contradicts ft (line 1): at most 4095 are possible`},
		{"what would be refused of the guest", "ft='kemari'\nft_peer='kemari:unix:/a'\ntype='pvh'\nname='web--kemari'\nkernel='vmlinuz'\nramdisk='/boot/../x'\nseclabel='a'",
			`g.cfg:7: seclabel contradicts ft (line 1): XSM labels are not carried to another host
g.cfg:4: name: "web--kemari" is the name of a shell
g.cfg:5: kernel contradicts ft (line 1): "vmlinuz"; allowed: an absolute path without . or ..
g.cfg:6: ramdisk contradicts ft (line 1): "/boot/../x"; allowed: an absolute path without . or ..`},
		{"misspelt", "ft='kemari'\nftpeer='kemari:unix:/a'\nfti=1\nft_peer='kemari:unix:/a'\ntype='pvh'",
			"g.cfg:2: unknown key \"ftpeer\"; allowed: ft, ft_interval_ms, ft_peer\ng.cfg:3: unknown key \"fti\"; allowed: ft, ft_interval_ms, ft_peer"},
		{"misspelt without ft", "ftpeer='kemari:unix:/a'", "g.cfg:1: unknown key \"ftpeer\"; allowed: ft, ft_interval_ms, ft_peer"},
		{"ft_ without ft", "ft_peer='kemari:unix:/a'\nft_x=1",
			"g.cfg:2: unknown key \"ft_x\"; allowed: ft, ft_interval_ms, ft_peer\ng.cfg:1: ft_peer without ft = \"kemari\" has no effect; add it or remove this line"},
	} {
		_, err := parseGuest(t, tc.src, Default())
		if err == nil {
			t.Errorf("%s: accepted", tc.name)
		} else if diff := cmp.Diff(tc.want, err.Error()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
	}
}

// TestKeysAlone: where ft is not in the file, its other keys are judged, and what xl's
// command line may have replaced is not.
func TestKeysAlone(t *testing.T) {
	for src, want := range map[string]string{
		"ft_peer='kemari:unix:/a'\nft_interval_ms=40\ntype='hvm'\nvif=['']": "",
		"ftpeer='kemari:unix:/a'\nft_interval_ms=5": `g.cfg:1: unknown key "ftpeer"; allowed: ft, ft_interval_ms, ft_peer
g.cfg:2: ft_interval_ms: "5"; allowed: a number from 10 to 60000`,
	} {
		f, err := xlcfg.Parse("g.cfg", []byte(src))
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if err := CheckKeys(f); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", src, got, want)
		}
	}
}

func TestTapDisks(t *testing.T) {
	for _, tc := range []struct{ spec, want string }{
		{"/dev/vg/web,raw,xvda,rw", "backendtype=tap,script=block-kemari,/dev/vg/web,raw,xvda,rw"},
		{"phy:/dev/vg/web,xvda,w", "backendtype=tap,script=block-kemari,phy:/dev/vg/web,xvda,w"},
		{"vdev=xvda, backendtype=tap, target=/a,b", "script=block-kemari,vdev=xvda, backendtype=tap, target=/a,b"},
		{"vdev=xvda,target=/dev/x,script=y", "backendtype=tap,script=block-kemari,vdev=xvda,target=/dev/x,script=y"},
		{"vdev=xvda,script=block-x,target=y", ""},
		{"/dev/x,raw,xvda,rw,backendtype=phy", ""},
		{"nbd:host:1,raw,xvda,w", ""},
		{"/dev/x,raw,xvda:cdrom,r", ""},
		{"/dev/cd,raw,hdc,cdrom", ""},
	} {
		got, err := TapDisks(xlcfg.Value{IsList: true, List: []xlcfg.Value{{Text: tc.spec}}})
		switch {
		case tc.want == "" && err == nil:
			t.Errorf("%q: accepted as %q", tc.spec, got)
		case tc.want != "" && (err != nil || got[0] != tc.want):
			t.Errorf("%q: got %q %v, want %q", tc.spec, got, err, tc.want)
		}
	}
}

func FuzzParseURI(f *testing.F) {
	f.Add("kemari:tcp:[::1]:7460")
	f.Add("kemari:vsock:2:99")
	f.Add("kemari:unix:/run/x")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseURI(s)
		if err != nil {
			return
		}
		if again, err := ParseURI(u.String()); err != nil || again != u || u.String() != s {
			t.Fatalf("%q became %q", s, u)
		}
	})
}

func FuzzParseHost(f *testing.F) {
	f.Add([]byte("peer=\"kemari:tcp:a:1\"\nfence_command=['/bin/true']\ndirty_pages=4096"))
	f.Fuzz(func(t *testing.T, src []byte) {
		h, err := ParseHost("k", src)
		if err == nil && (h.HeartbeatMisses < 2 || h.DirtyPages < 1024 || h.HeartbeatInterval <= 0) {
			t.Fatalf("accepted %q as %+v", src, h)
		}
	})
}

// FuzzParseGuest: a guest that is accepted has a peer and an interval in bounds,
// and one that is not is not half accepted.
func FuzzParseGuest(f *testing.F) {
	f.Add([]byte("name='g'\ntype='pvh'\nmax_grant_version=1\nft='kemari'\nft_peer='kemari:tcp:h:1'\nft_interval_ms=10"))
	f.Add([]byte("ft_interval_ms=10"))
	f.Fuzz(func(t *testing.T, src []byte) {
		file, err := xlcfg.Parse("g", src)
		if err != nil {
			return
		}
		g, err := ParseGuest(file, Default())
		if err != nil {
			if g != nil {
				t.Fatalf("%q: refused (%v), and %+v", src, err, g)
			}
			return
		}
		if g != nil && (g.Peer.Transport == "" || g.Interval < MinInterval || g.Interval > MaxInterval) {
			t.Fatalf("accepted %q as %+v", src, g)
		}
	})
}

// TestManPage: each key that is accepted is documented, and no other.
func TestManPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/man/kemari.conf.5.pod")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, m := range regexp.MustCompile(`(?m)^=item B<([a-z_]+)=`).FindAllStringSubmatch(string(page), -1) {
		documented = append(documented, m[1])
	}
	allowed := func(err error) []string {
		_, list, _ := strings.Cut(err.Error(), "allowed: ")
		return strings.Split(list, ", ")
	}
	_, hostErr := ParseHost("x", []byte("unknown=1"))
	_, guestErr := parseGuest(t, "ft_unknown=1", Default())
	accepted := append(allowed(hostErr), allowed(guestErr)...)
	slices.Sort(documented)
	slices.Sort(accepted)
	if diff := cmp.Diff(accepted, documented); diff != "" {
		t.Errorf("(-accepted +documented):\n%s", diff)
	}
}
