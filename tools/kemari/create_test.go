// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
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
