// SPDX-License-Identifier: Apache-2.0

package pair

import (
	"strings"
	"testing"
)

func TestComparePages(t *testing.T) {
	const guest = "role primary state 0x6 epoch 3\n0 aa\n1 bb\n2 cc always\nfeffc dd always\n"
	for _, c := range []struct{ name, guest, shell, want string }{
		{"same", guest, "role secondary state 0x0 epoch 0\n0 aa\n1 bb\n2 ee\n", ""},
		{"lost", guest, "role secondary state 0x0 epoch 0\n0 aa\n1 b0\n2 cc\n", "1 of 2 pages of guest and shell differ: 1"},
		{"missing", guest, "role secondary state 0x0 epoch 0\n0 aa\n", "1 (missing)"},
		{"too many", guest, "role secondary state 0x0 epoch 0\n0 aa\n1 bb\n7 11\n", "7 (too many)"},
		{"nothing", "role primary state 0x6 epoch 3\n", "role secondary state 0x0 epoch 0\n", "no page"},
		{"released", "role none state 0x0 epoch 0\n0 aa\n", "role secondary state 0x0 epoch 0\n0 aa\n", "not a primary"},
	} {
		_, always, err := comparePages(c.guest, c.shell)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if c.want == "" && always != 2 {
			t.Errorf("%s: %d always-sent pages, want 2", c.name, always)
		}
	}
}
