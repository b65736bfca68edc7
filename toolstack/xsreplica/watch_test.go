// SPDX-License-Identifier: Apache-2.0

package xsreplica

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseWatches(t *testing.T) {
	// As seen from a Linux guest, among others.
	reply := `watch D4242: control/shutdown FFFFFFFF82DDAB00
watch D4242: memory/target FFFFFFFF82DDB560
watch D42: memory/target FFFFFFFF82DDB560
watch D4242: /local/domain/0/backend/vbd3/4242/51712/state FFFF888004E43020
watch D7: evil a
watch D7: token
broken
watch A3: @releaseDomain token with blanks
watch D4242: data with blanks
` + "\x00"
	got, err := ParseWatches(reply, dom)
	if err != nil {
		t.Fatal(err)
	}
	want := []Watch{
		{"control/shutdown", "FFFFFFFF82DDAB00"},
		{"memory/target", "FFFFFFFF82DDB560"},
		{"/local/domain/0/backend/vbd3/4242/51712/state", "FFFF888004E43020"},
		{"data", "with blanks"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for name, reply := range map[string]string{
		"token with line break":   "watch D4242: a b\nc\nwatch D1: x y\n",
		"token with blank line":   "watch D4242: a b\n\nc\n",
		"token with control char": "watch D4242: a b\x01\n",
		"no path":                 "watch D4242:  x\n",
		"twice":                   "watch D4242: a b\nwatch D4242: a b\n",
		"too many":                strings.Repeat("watch D4242: a b\n", 2000),
	} {
		if _, err := ParseWatches(reply, dom); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzParseWatches(f *testing.F) {
	f.Add("watch D4242: a b\nwatch A1: x y\n\x00")
	f.Fuzz(func(t *testing.T, reply string) {
		watches, err := ParseWatches(reply, dom)
		if err != nil {
			return
		}
		if _, err := (&State{Watches: watches}).Encode(dom); err != nil {
			t.Fatalf("parsed, but cannot be sent: %v", err)
		}
	})
}
