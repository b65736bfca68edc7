// SPDX-License-Identifier: Apache-2.0

package check

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func ticksOf(n uint64) []Tick {
	c := NewChain(testBoot, make([]Hash, 64))
	var out []Tick
	for i := uint64(1); i <= n; i++ {
		for range 10 {
			c.Advance()
		}
		h := c.Head()
		out = append(out, Tick{N: i, Link: c.Link(), Short: fmt.Sprintf("%x", h[:8]), MonoNs: int64(i) * 1e9, TSC: i * 2e9, Acked: i})
	}
	return out
}

func TestTickReadsWhatItPrints(t *testing.T) {
	want := ticksOf(3)[2]
	if got, ok := ParseTick(want.String() + "\r\n"); !ok || got != want {
		t.Errorf("%q read as %+v, %v", want, got, ok)
	}
	line := want.String()
	for cut := range len(line) {
		if got, ok := ParseTick(line[:cut]); ok {
			t.Errorf("%q, cut by a power failure, read as %+v", line[:cut], got)
		}
	}
	for _, bad := range []string{"", "tick", "ticks 1", "x " + line, line + " .", strings.Replace(line, "mono=", "mono=+", 1),
		strings.Replace(line, want.Short, "zzzzzzzzzzzzzzzz", 1)} {
		if got, ok := ParseTick(bad); ok {
			t.Errorf("%q read as %+v", bad, got)
		}
	}
}

func TestTicks(t *testing.T) {
	good := ticksOf(20)
	// Ticks 11 to 14 were printed, lost with their epoch, and printed again a
	// little later of the guest's time.
	replayed := append(append([]Tick{}, good[:14]...), good[10:]...)
	for i := 14; i < len(replayed); i++ {
		replayed[i].MonoNs += 5e6
	}
	r, err := Ticks(testBoot, 64, replayed)
	if err != nil || r.Rewinds != 1 || r.Skipped != 0 {
		t.Errorf("printed twice: %+v, %v", r, err)
	}
	if r, err := Ticks(testBoot, 64, append(append([]Tick{}, good[:5]...), good[8:]...)); err != nil || r.Skipped != 3 {
		t.Errorf("lost on the console: %+v, %v", r, err)
	}
	for name, spoil := range map[string]func([]Tick){
		"another chain":  func(ts []Tick) { ts[15].Short = ts[14].Short },
		"clock backward": func(ts []Tick) { ts[15].MonoNs = ts[14].MonoNs - 1 },
		"TSC backward":   func(ts []Tick) { ts[15].TSC = 1 },
		"forgot records": func(ts []Tick) { ts[15].Acked = 3 },
	} {
		ts := ticksOf(20)
		spoil(ts)
		if _, err := Ticks(testBoot, 64, ts); err == nil || !strings.Contains(err.Error(), "tick 16") {
			t.Errorf("%s: %v, want tick 16 named", name, err)
		}
	}
	if _, err := Ticks("00000000-0000-4000-8000-000000000009", 64, good); err == nil {
		t.Error("the ticks of another boot passed")
	}
}

func TestStatusReadsWhatItPrints(t *testing.T) {
	_, want := image(100, 90, 93, 97)
	want.Chain.Hash = Hash{0xab}
	raw, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got, ok, err := ParseStatus("status " + string(raw) + "\r\n")
	if !ok || err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read back %+v, %v, %v", got, ok, err)
	}
	for name, line := range map[string]string{
		"cut short":      "status " + string(raw[:len(raw)-2]),
		"unknown field":  `status {"bootid":"x"}`,
		"two values":     "status " + string(raw) + " {}",
		"no boot id":     "status {}",
		"acked > issued": "status " + strings.Replace(string(raw), `"issued":100`, `"issued":95`, 1),
		"miscounted":     "status " + strings.Replace(string(raw), `"acked":92`, `"acked":91`, 1),
		"endless":        "status " + strings.Repeat(" ", maxLine+1),
	} {
		if s, ok, err := ParseStatus(line); !ok || err == nil {
			t.Errorf("%s: read as %+v, %v, %v", name, s, ok, err)
		}
	}
	if _, ok, err := ParseStatus("[   59.7] reboot: Power down"); ok || err != nil {
		t.Errorf("another line: %v, %v", ok, err)
	}
}

// A parsed line is printable and reads the same again.
func FuzzConsole(f *testing.F) {
	f.Add(ticksOf(1)[0].String())
	_, s := image(9, 7, 9)
	raw, err := json.Marshal(s)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("status " + string(raw))
	f.Add(`verify {"ok":true,"records":3}`)
	f.Fuzz(func(t *testing.T, line string) {
		if tick, ok := ParseTick(line); ok && tick.String() != strings.TrimRight(line, "\r\n") {
			t.Errorf("%q read as %q", line, tick)
		}
		if s, ok, err := ParseStatus(line); ok && err == nil && s.Disk != nil {
			if s.Disk.AckedThrough > Capacity(s.Disk.Size) {
				t.Errorf("%d records on a disk of %d bytes", s.Disk.AckedThrough, s.Disk.Size)
			}
		}
		_, _, _ = ParseVerify(line)
	})
}
