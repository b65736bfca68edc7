// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kemari-ft/kemari/toolstack/xlcfg"
)

// TestHookJudgesTheFile: xl looks for the keys that it knows; what is wrong with
// the others is said here, with its line.
func TestHookJudgesTheFile(t *testing.T) {
	const guest = "name = \"web\"\ntype = \"pvh\"\nmemory = 256\nkernel = \"/boot/vmlinuz\"\n"
	const ft = "ft = \"kemari\"\n"
	for _, c := range []struct{ more, want string }{
		{ft + "ft_peer = \"kemari:tcp:b:7070\"\n", ""},
		{ft + "ft_peer = \"kemari:tcp:b:7070\"\nft_intervall_ms = 20\n", "guest.cfg:7: unknown key \"ft_intervall_ms\""},
		{ft + "ft_peer = \"kemari:tcp:b:7070\"\nft_interval_ms = 0\n", "guest.cfg:7: ft_interval_ms"},
		{ft + "ft_peer = \"kemari:tcp:b:7070\"\npci = [ \"01:00.0\" ]\n", "guest.cfg:7: pci"},
		// With ft="kemari" on xl's command line, and what it does not like of
		// the rest replaced there.
		{"ft_peer = \"kemari:tcp:b:7070\"\npci = [ \"01:00.0\" ]\n", ""},
		{"ftpeer = \"kemari:tcp:b:7070\"\n", "guest.cfg:5: unknown key \"ftpeer\""},
	} {
		file := filepath.Join(t.TempDir(), "guest.cfg")
		if err := os.WriteFile(file, []byte(guest+c.more), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := hookGuest(file)
		if c.want == "" && err != nil {
			t.Error(err)
		}
		if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%q: got %v, want %q", c.more, err, c.want)
		}
	}
}

// TestRewrite: what kemari create gives to an xl without Kemari's patch is a guest that
// can be protected, and says nothing of ft.
func TestRewrite(t *testing.T) {
	file := filepath.Join(t.TempDir(), "guest.cfg")
	const text = `name = "web" # ft = "kemari" in a comment
type = "pvh"
 ft = 'kemari'
ft_peer="kemari:tcp:b:7070"
disk = [ "/dev/vg/a,raw,xvda,rw",
         "format=raw, vdev=xvdb, access=r, target=/dev/b, c" ]
max_grant_version = 2
ft_interval_ms = 40`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := xlcfg.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	const id = "0b7e7e5e-6e2c-4f3b-8f0a-2a5f0e4f1c11"
	b, err := rewrite(file, f, id)
	if err != nil {
		t.Fatal(err)
	}
	got, err := xlcfg.Parse("rewritten", b)
	if err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	if bytes.Contains(b, []byte("ft_")) {
		t.Errorf("an ft key is left:\n%s", b)
	}
	for key, want := range map[string]string{"name": "web", "type": "pvh", "uuid": id, "max_grant_version": "1", "ft": ""} {
		if s, _ := got.Get(key); s.Value.Text != want {
			t.Errorf("%s is %q, want %q", key, s.Value.Text, want)
		}
	}
	s, _ := got.Get("disk")
	disks, _ := s.Value.Strings()
	if len(disks) != 2 || !strings.Contains(disks[0], "backendtype=tap") || !strings.HasSuffix(disks[0], "/dev/vg/a,raw,xvda,rw") ||
		!strings.HasSuffix(disks[1], "target=/dev/b, c") {
		t.Errorf("disks are %q", disks)
	}
}
