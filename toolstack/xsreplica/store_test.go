// SPDX-License-Identifier: Apache-2.0

package xsreplica

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/xenstore"
)

const dom abi.DomID = 4242

// store is a xenstore in memory: Write makes missing parents.
type store map[string]*Node

func (s store) Read(path string) (string, error) {
	if n := s[path]; n != nil {
		return n.Value, nil
	}
	return "", fmt.Errorf("READ %s: %w", path, fs.ErrNotExist)
}

func (s store) List(path string) ([]string, error) {
	if s[path] == nil {
		return nil, fmt.Errorf("DIRECTORY %s: %w", path, fs.ErrNotExist)
	}
	var names []string
	for p := range s {
		if rest, ok := strings.CutPrefix(p, path+"/"); ok && !strings.Contains(rest, "/") {
			names = append(names, rest)
		}
	}
	slices.Sort(names)
	return names, nil
}

func (s store) GetPerms(path string) ([]xenstore.Perm, error) {
	if s[path] == nil {
		return nil, fs.ErrNotExist
	}
	return s[path].Perms, nil
}

func (s store) Write(path, value string) error {
	for i := 1; i < len(path); i++ {
		if path[i] == '/' && s[path[:i]] == nil {
			s[path[:i]] = &Node{Path: path[:i], Perms: []xenstore.Perm{{Dom: 0, Access: 'n'}}}
		}
	}
	if s[path] == nil {
		s[path] = &Node{Path: path, Perms: []xenstore.Perm{{Dom: 0, Access: 'n'}}}
	}
	s[path].Value = value
	return nil
}

func (s store) SetPerms(path string, perms ...xenstore.Perm) error {
	s[path].Perms = perms
	return nil
}

func (s store) Rm(path string) error {
	if s[path] == nil {
		return fs.ErrNotExist
	}
	for p := range s {
		if p == path || strings.HasPrefix(p, path+"/") {
			delete(s, p)
		}
	}
	return nil
}

// guestStore is what a running guest with a disk has in xenstore.
func guestStore() store {
	s := store{}
	for _, line := range strings.Split(strings.TrimSpace(`
/local/domain/4242 = n0 r4242
/local/domain/4242/vm = n0 r4242 /vm/0b7e
/local/domain/4242/name = n0 r4242 web
/local/domain/4242/console/tty = n0 r4242 /dev/pts/3
/local/domain/4242/store/port = n0 r4242 1
/local/domain/4242/control/shutdown = n4242
/local/domain/4242/control/feature-poweroff = n4242 1
/local/domain/4242/control/platform-feature-xs_reset_watches = n0 r4242 1
/local/domain/4242/memory/target = n0 r4242 131072
/local/domain/4242/memory/static-max = n0 r4242 131072
/local/domain/4242/data = n4242
/local/domain/4242/data/os_name = n4242 debian
/local/domain/4242/device = n0 r4242
/local/domain/4242/device/suspend/event-channel = n4242
/local/domain/4242/device/vbd/51712 = n4242 r0
/local/domain/4242/device/vbd/51712/backend = n4242 r0 /local/domain/0/backend/vbd3/4242/51712
/local/domain/4242/device/vbd/51712/backend-id = n4242 r0 0
/local/domain/4242/device/vbd/51712/state = n4242 r0 4
/local/domain/4242/device/vbd/51712/ring-ref = n4242 r0 8
/local/domain/0/backend/vbd3/4242/51712 = n0 r4242
/local/domain/0/backend/vbd3/4242/51712/frontend = n0 r4242 /local/domain/4242/device/vbd/51712
/local/domain/0/backend/vbd3/4242/51712/frontend-id = n0 r4242 4242
/local/domain/0/backend/vbd3/4242/51712/params = n0 r4242 aio:/dev/vg0/web
/local/domain/0/backend/vbd3/4242/51712/script = n0 r4242 /etc/xen/scripts/block-kemari
/local/domain/0/backend/vbd3/4242/51712/physical-device = n0 r4242 fe:0
/local/domain/0/backend/vbd3/4242/51712/type = n0 r4242 vbd3
/local/domain/0/backend/vbd3/4242/51712/specification = n0 r4242 xen
/local/domain/0/backend/vbd3/4242/51712/state = n0 r4242 4
/local/domain/0/backend/vbd3/42/51712/state = n0 r42 4
/local/domain/4243/data/secret = n4243 x
/libxl/4242/dm-version = n0 qemu_xen
`), "\n") {
		path, rest, _ := strings.Cut(line, " = ")
		var perms []xenstore.Perm
		var value []string
		for _, word := range strings.Fields(rest) {
			if p, err := xenstore.ParsePerm(word); err == nil && value == nil {
				perms = append(perms, p)
			} else {
				value = append(value, word)
			}
		}
		s.Write(path, strings.Join(value, " "))
		s.SetPerms(path, perms...)
	}
	return s
}

func TestSnapshot(t *testing.T) {
	nodes, err := Snapshot(guestStore(), dom)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range nodes {
		got = append(got, n.Path)
	}
	want := strings.Fields(`
/local/domain/0/backend/vbd3/4242
/local/domain/0/backend/vbd3/4242/51712
/local/domain/0/backend/vbd3/4242/51712/frontend
/local/domain/0/backend/vbd3/4242/51712/frontend-id
/local/domain/0/backend/vbd3/4242/51712/params
/local/domain/0/backend/vbd3/4242/51712/script
/local/domain/0/backend/vbd3/4242/51712/specification
/local/domain/0/backend/vbd3/4242/51712/state
/local/domain/0/backend/vbd3/4242/51712/type
/local/domain/4242/control/feature-poweroff
/local/domain/4242/data
/local/domain/4242/data/os_name
/local/domain/4242/device
/local/domain/4242/device/suspend
/local/domain/4242/device/suspend/event-channel
/local/domain/4242/device/vbd
/local/domain/4242/device/vbd/51712
/local/domain/4242/device/vbd/51712/backend
/local/domain/4242/device/vbd/51712/backend-id
/local/domain/4242/device/vbd/51712/ring-ref
/local/domain/4242/device/vbd/51712/state
/local/domain/4242/memory/target`)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestSnapshotGivesEveryReason: an operator must not learn the reasons one by one;
// nor can a guest make more of them than can be read.
func TestSnapshotGivesEveryReason(t *testing.T) {
	s := guestStore()
	s.Write("/local/domain/4242/device/vif/0/backend", "/local/domain/3/backend/vif/4242/0")
	s.Write("/local/domain/4242/device/vif/0/backend-id", "3")
	s.Write("/local/domain/4242/device/9pfs/1/backend", "/local/domain/0/backend/9pfs/4242/1")
	s.Write("/local/domain/0/backend/vbd3/4242/51712/script", "/tmp/other")
	_, err := Snapshot(s, dom)
	want := `xenstore nodes of domain 4242: device 9pfs/1: this class of device cannot be protected
device vif/0: network devices (vif) cannot be protected yet
node /local/domain/4242/device/vif/0/backend-id: "3", expected "0"
node /local/domain/0/backend/vbd3/4242/51712/script: "/tmp/other", expected "/etc/xen/scripts/block-kemari"`
	if err == nil || err.Error() != want || !errors.Is(err, ErrContent) {
		t.Errorf("got %v, want %s", err, want)
	}
	for i := range 100 {
		s.Write(fmt.Sprintf("/local/domain/4242/device/vbd/%d/backend-id", i), "7")
	}
	if _, err := Snapshot(s, dom); err == nil || strings.Count(err.Error(), "\n") >= maxReasons {
		t.Errorf("of too many reasons is said: %v", err)
	}
}

// TestReplicate carries a guest's nodes to a host where a shell lies.
func TestReplicate(t *testing.T) {
	src := guestStore()
	nodes, err := Snapshot(src, dom)
	if err != nil {
		t.Fatal(err)
	}
	state := &State{Nodes: nodes, Watches: []Watch{{"device", "FF82"}, {"@releaseDomain", ""}}}
	blob, err := state.Encode(dom)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(blob, dom)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(state, got); diff != "" {
		t.Fatalf("(-want +got):\n%s", diff)
	}

	dst := store{}
	local := map[string]string{
		"/local/domain/4242/name":                   "web--kemari",
		"/local/domain/4242/console/tty":            "/dev/pts/9",
		"/local/domain/4242/control/shutdown":       "",
		"/local/domain/4242/control/feature-s4":     "stale",
		"/local/domain/4242/device/vbd/51728/state": "stale",
		"/local/domain/7/data/os_name":              "other",
		"/local/domain/0/backend/vbd3/7/51712/mode": "w",
	}
	for path, value := range local {
		dst.Write(path, value)
	}
	if err := Apply(dst, dom, got.Nodes); err != nil {
		t.Fatal(err)
	}
	again, err := Snapshot(dst, dom)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(nodes, again); diff != "" {
		t.Errorf("the copy differs (-want +got):\n%s", diff)
	}
	for path, value := range local {
		if value == "stale" {
			continue
		}
		if v, err := dst.Read(path); err != nil || v != value {
			t.Errorf("%s of the other host became %q (%v)", path, v, err)
		}
	}
}

// I11: what xl and its console find a domain by, and talk to it through, is
// this host's; what they look at of the guest and its devices is the guest's.
func TestI11NodesAsXLExpects(t *testing.T) {
	src := guestStore()
	src.Write("/local/domain/4242/control/shutdown", "poweroff") // asked for on the other host
	nodes, err := Snapshot(src, dom)
	if err != nil {
		t.Fatal(err)
	}
	// What xl restore has written of the shell.
	local := map[string]string{
		"/local/domain/4242/vm":                                "/vm/0b7e",
		"/local/domain/4242/name":                              "web--kemari",
		"/local/domain/4242/domid":                             "4242",
		"/local/domain/4242/console/tty":                       "/dev/pts/9",
		"/local/domain/4242/console/limit":                     "1048576",
		"/local/domain/4242/console/type":                      "xenconsoled",
		"/local/domain/4242/console/port":                      "2",
		"/local/domain/4242/store/port":                        "1",
		"/local/domain/4242/control/shutdown":                  "",
		"/local/domain/4242/control/platform-feature-xs_reset": "1",
		"/libxl/4242/type":                                     "pvh",
	}
	shell := store{}
	for path, value := range local {
		shell.Write(path, value)
	}
	if err := Apply(shell, dom, nodes); err != nil {
		t.Fatal(err)
	}
	for path, value := range local {
		if v, err := shell.Read(path); err != nil || v != value {
			t.Errorf("%s of this host became %q (%v)", path, v, err)
		}
	}
	for _, path := range []string{
		"/local/domain/4242/device/vbd/51712/state", "/local/domain/4242/device/vbd/51712/ring-ref",
		"/local/domain/4242/control/feature-poweroff", "/local/domain/4242/data/os_name", "/local/domain/4242/memory/target",
	} {
		if diff := cmp.Diff(src[path], shell[path]); diff != "" {
			t.Errorf("%s (-guest +here):\n%s", path, diff)
		}
	}
}

// TestHostileState: what a peer could try to have written as the toolstack.
func TestHostileState(t *testing.T) {
	perms := []xenstore.Perm{{Dom: dom, Access: 'n'}}
	node := func(path, value string) []Node { return []Node{{path, value, perms}} }
	const back = "/local/domain/0/backend/vbd3/4242/51712"
	for name, s := range map[string]State{
		"another domain":        {Nodes: node("/local/domain/5/data/x", "")},
		"prefix of another":     {Nodes: node("/local/domain/42421/data", "")},
		"domain 0":              {Nodes: node("/local/domain/0/data", "")},
		"another back end":      {Nodes: node("/local/domain/0/backend/vbd3/5/51712/params", "")},
		"kernel back end":       {Nodes: node("/local/domain/0/backend/vbd/4242/51712/params", "")},
		"libxl":                 {Nodes: node("/libxl/4242/device", "")},
		"console":               {Nodes: node("/local/domain/4242/console/tty", "")},
		"shutdown":              {Nodes: node("/local/domain/4242/control/shutdown", "poweroff")},
		"below a feature":       {Nodes: node("/local/domain/4242/control/feature-x/y", "")},
		"empty component":       {Nodes: node("/local/domain/4242/data//x", "")},
		"final slash":           {Nodes: node("/local/domain/4242/data/", "")},
		"NUL":                   {Nodes: node("/local/domain/4242/data/a\x00b", "")},
		"dots":                  {Nodes: node("/local/domain/4242/data/../../5", "")},
		"long path":             {Nodes: node("/local/domain/4242/data/"+strings.Repeat("x", 4000), "")},
		"long value":            {Nodes: node("/local/domain/4242/data", strings.Repeat("x", 5000))},
		"script":                {Nodes: node(back+"/script", "/tmp/evil")},
		"physical device":       {Nodes: node(back+"/physical-device", "8:0")},
		"other front end":       {Nodes: node(back+"/frontend", "/local/domain/5/device/vbd/51712")},
		"other front end's id":  {Nodes: node(back+"/frontend-id", "5")},
		"other's disk":          {Nodes: node("/local/domain/4242/device/vbd/51712/backend", "/local/domain/0/backend/vbd3/5/51712")},
		"other class":           {Nodes: node("/local/domain/4242/device/9pfs/0/backend", "/local/domain/0/backend/9pfs/4242/0")},
		"driver domain":         {Nodes: node("/local/domain/4242/device/vbd/51712/backend-id", "5")},
		"permission for others": {Nodes: []Node{{"/local/domain/4242/data", "", []xenstore.Perm{{Dom: 5, Access: 'b'}}}}},
		"unknown access":        {Nodes: []Node{{"/local/domain/4242/data", "", []xenstore.Perm{{Dom: 0, Access: 'x'}}}}},
		"no permissions":        {Nodes: []Node{{"/local/domain/4242/data", "", nil}}},
		"twice":                 {Nodes: append(node("/local/domain/4242/data", ""), node("/local/domain/4242/data", "")...)},
		"watch twice":           {Watches: []Watch{{"a", "b"}, {"a", "b"}}},
		"watch with NUL":        {Watches: []Watch{{"a", "b\x00c"}}},
		"watch of nothing":      {Watches: []Watch{{"", "b"}}},
		"many watches":          {Watches: make([]Watch, maxWatches+1)},
		"many nodes":            {Nodes: make([]Node, maxNodes+1)},
	} {
		if _, err := s.Encode(dom); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	blob, err := (&State{Nodes: node("/local/domain/4242/data", "x")}).Encode(dom)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Decode(blob, dom+1); err == nil {
		t.Error("the state of another domain was accepted")
	}
	for i := range blob {
		if _, err := Decode(blob[:i], dom); err == nil {
			t.Errorf("accepted when cut at %d of %d", i, len(blob))
		}
	}
	if _, err := Decode(append(blob, 0), dom); err == nil {
		t.Error("accepted with a byte too many")
	}
}

func FuzzDecode(f *testing.F) {
	nodes, err := Snapshot(guestStore(), dom)
	if err != nil {
		f.Fatal(err)
	}
	blob, err := (&State{Nodes: nodes, Watches: []Watch{{"device", "FF"}}}).Encode(dom)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(blob)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Decode(b, dom)
		if err != nil {
			return
		}
		for _, n := range s.Nodes {
			if !allowed(n.Path, dom) {
				t.Fatalf("accepted %s", n.Path)
			}
		}
		again, err := s.Encode(dom)
		if err != nil || string(again) != string(b) {
			t.Fatalf("not canonical: %v", err)
		}
	})
}
