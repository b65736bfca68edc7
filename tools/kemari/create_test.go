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
	const good = "name = \"web\"\ntype = \"pvh\"\nmemory = 256\nkernel = \"/boot/vmlinuz\"\nft = \"kemari\"\n"
	for _, c := range []struct{ more, want string }{
		{"ft_peer = \"kemari:tcp:b:7070\"\n", ""},
		{"ft_peer = \"kemari:tcp:b:7070\"\nft_intervall_ms = 20\n", "guest.cfg:7: unknown key \"ft_intervall_ms\""},
		{"ft_peer = \"kemari:tcp:b:7070\"\nft_interval_ms = 0\n", "guest.cfg:7: ft_interval_ms"},
		{"ft_peer = \"kemari:tcp:b:7070\"\npci = [ \"01:00.0\" ]\n", "guest.cfg:7: pci"},
	} {
		file := filepath.Join(t.TempDir(), "guest.cfg")
		if err := os.WriteFile(file, []byte(good+c.more), 0o600); err != nil {
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
