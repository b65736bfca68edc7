// SPDX-License-Identifier: Apache-2.0

package pair

import (
	"crypto/sha256"
	"strings"
	"testing"

	"github.com/kemari-ft/kemari/tools/lab/nbd"
)

func TestJudgeLUN(t *testing.T) {
	w := func(host string, off uint64, data string, landed uint64, answered bool) nbd.Event {
		return nbd.Event{Host: host, Op: nbd.Write, Offset: off, Length: 512, Hash: sha256.Sum256([]byte(data)), Landed: landed, Answered: answered}
	}
	for _, c := range []struct {
		name string
		log  []nbd.Event
		want string // part of the error, "" for none
	}{
		{"clean", []nbd.Event{w("a", 0, "x", 1, true), w("b", 512, "y", 2, true)}, ""},
		{"executed again", []nbd.Event{w("a", 0, "x", 1, true), w("a", 512, "y", 0, false), w("b", 512, "y", 2, true)}, ""},
		{"uncommitted", []nbd.Event{w("a", 0, "x", 1, true), w("b", 0, "other", 2, true)}, "before the commit"},
		{"late", []nbd.Event{w("a", 0, "x", 1, true), w("b", 512, "y", 2, true), w("a", 1024, "z", 3, true)}, "landed after"},
		{"forgotten", []nbd.Event{w("a", 0, "x", 0, false)}, "executed 0 times"},
		{"twice", []nbd.Event{w("a", 0, "x", 0, false), w("b", 0, "x", 1, true), w("b", 0, "x", 2, true)}, "executed 2 times"},
	} {
		_, err := JudgeLUN(c.log, "a", "b")
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
