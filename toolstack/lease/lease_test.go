// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"
)

// TestI8Proof: what allows the secondary to activate the guest.
func TestI8Proof(t *testing.T) {
	for p, want := range map[Proof][2]bool{ // without and with a shared disk
		NoProof: {false, false}, Fenced: {true, true}, LetGo: {true, true},
		LeaseExpired: {true, false}, Discarded: {false, false}, NeverWhole: {false, false},
	} {
		if got := [2]bool{MayActivate(p, false), MayActivate(p, true)}; got != want {
			t.Errorf("%v: without and with a shared disk %v, want %v", p, got, want)
		}
	}
}

// TestI12Choice: the newest acknowledged epoch of a whole image, or none.
func TestI12Choice(t *testing.T) {
	rec := Record{Generation: 3, Phase: Protecting}
	img := Image{Generation: 3, Acked: 9, Applied: 8, Whole: true}
	if k, err := Choose(img, rec); err != nil || k != 9 {
		t.Errorf("chose epoch %d, %v", k, err)
	}
	for name, bad := range map[string]struct {
		img Image
		rec Record
	}{
		"restarted":        {Image{}, rec},
		"torn":             {Image{Generation: 3, Acked: 9, Applied: 9}, rec},
		"older generation": {Image{Generation: 2, Acked: 9, Applied: 9, Whole: true}, rec},
		"discarded":        {img, Record{Generation: 3, Phase: Gone}},
		"first copy":       {Image{Generation: 3}, Record{Generation: 3, Phase: Copying}},
	} {
		if k, err := Choose(bad.img, bad.rec); err == nil {
			t.Errorf("%s: chose epoch %d", name, k)
		}
	}
	if !MayAck(false) || MayAck(true) {
		t.Error("acknowledging goes on after the choice")
	}
}

// TestI13Proof: what allows the primary to let output go.
func TestI13Proof(t *testing.T) {
	for p, want := range map[Proof]bool{NoProof: false, Fenced: true, LetGo: false, LeaseExpired: false, Discarded: true, NeverWhole: true} {
		if MayLeave(p) != want {
			t.Errorf("%v: %v, want %v", p, !want, want)
		}
	}
}

func TestRecord(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Record{
			Guest:      uuid.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "uuid")),
			Role:       rapid.SampledFrom([]Role{Primary, Secondary}).Draw(t, "role"),
			Generation: rapid.Uint64Min(1).Draw(t, "generation"),
			Phase:      rapid.SampledFrom([]Phase{Copying, Protecting, Unprotected, HandedOver, Gone, Running, Ended}).Draw(t, "phase"),
			Epoch:      rapid.Uint64().Draw(t, "epoch"),
		}
		b, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Decode(b); err != nil || got != r {
			t.Fatalf("%+v became %+v, %v", r, got, err)
		}
		// A file system may lose the end of a file.
		cut := rapid.IntRange(0, len(b)-3).Draw(t, "cut")
		if got, err := Decode(b[:cut]); err == nil {
			t.Fatalf("%d of %d octets were taken for %+v", cut, len(b), got)
		}
	})
}

func TestRecordRefused(t *testing.T) {
	good := `{"version":1,"guest":"01020300-0000-0000-0000-000000000000","role":"primary","generation":4,"phase":"protecting"}`
	if _, err := Decode([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{
		`"version":1`: `"version":2`, `"generation":4`: `"generation":0`, `"primary"`: `"both"`,
		`"protecting"`: `"safe"`, `"role"`: `"roll"`, `protecting"}`: `protecting"} {}`,
	} {
		if r, err := Decode([]byte(strings.Replace(good, from, to, 1))); err == nil {
			t.Errorf("%s: %+v", to, r)
		}
	}
}

func FuzzDecode(f *testing.F) {
	b, _ := Record{Role: Primary, Generation: 1, Phase: Copying}.Encode()
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Decode(b)
		if err != nil {
			return
		}
		again, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if back, err := Decode(again); err != nil || back != r {
			t.Fatalf("%+v became %+v, %v", r, back, err)
		}
	})
}

// watch runs a detector for so long, with heartbeats on the paths given.
func watch(d *Detector, long time.Duration, beating ...Path) Verdict {
	for range int(long / TickLength) {
		for _, p := range beating {
			d.Seen(p)
		}
		d.Tick()
	}
	return d.Verdict()
}

// TestI9DaemonRestartIsNotADeath: a peer whose host answers on the second path is
// not dead, however long its link is silent, and hung only after the grace.
func TestI9DaemonRestartIsNotADeath(t *testing.T) {
	for long := TickLength; long < time.Minute; long += TickLength {
		d, err := NewDetector(DefaultTiming)
		if err != nil {
			t.Fatal(err)
		}
		if got := watch(d, long, Second); got == Dead || got == Hung && long < DefaultTiming.Grace {
			t.Fatalf("after %v of silence on the link alone: %v", long, got)
		}
	}
}

func TestDetector(t *testing.T) {
	detector := func() *Detector {
		d, err := NewDetector(DefaultTiming)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for name, c := range map[string]struct {
		long    time.Duration
		beating []Path
		want    Verdict
	}{
		"healthy":                 {time.Hour, []Path{Link, Second}, Alive},
		"three heartbeats missed": {1700 * time.Millisecond, nil, Alive},
		"power cut":               {1800 * time.Millisecond, nil, Dead},
		"second path down":        {time.Hour, []Path{Link}, Degraded},
		"daemon restarts (I9)":    {9 * time.Second, []Path{Second}, DaemonLost},
		"daemon hangs":            {10 * time.Second, []Path{Second}, Hung},
		"dead for long":           {time.Hour, nil, Dead},
	} {
		if got := watch(detector(), c.long, c.beating...); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	d := detector()
	watch(d, time.Minute)
	d.Seen(Link)
	d.Seen(Second)
	if v := d.Verdict(); v != Alive {
		t.Errorf("back again: %v", v)
	}
	beats := 0
	for range 100 {
		if _, beat := d.Tick(); beat {
			beats++
		}
	}
	if beats != 20 {
		t.Errorf("%d heartbeats in 10 s", beats)
	}
}

func TestTiming(t *testing.T) {
	for _, bad := range []Timing{
		{}, {Interval: time.Second, Missed: 1, Grace: time.Minute}, {Interval: time.Millisecond, Missed: 3, Grace: time.Minute},
		{Interval: time.Second, Missed: 3, Grace: time.Second}, {Interval: time.Second, Missed: 3, Margin: -1, Grace: time.Minute},
	} {
		if _, err := NewDetector(bad); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}
