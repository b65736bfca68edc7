// SPDX-License-Identifier: Apache-2.0

package primary

import (
	"os"
	"testing"
	"time"

	"github.com/kemari-ft/kemari/xen/privcmd"
)

// TestMeterCounts: what is done in a sync is in its figures.
func TestMeterCounts(t *testing.T) {
	h := privcmd.Simulated(nil)
	m := meter{counters: newCounters(h)}
	defer m.counters.close()
	null, err := os.OpenFile("/dev/null", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	h.Call(0)
	m.begin(reasonTimer)
	for range 3 {
		h.Call(0)
	}
	for range 50 {
		if _, err := null.Write([]byte{0}); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(time.Millisecond)
	m.mark(&m.now.Look)
	s := m.end()
	if s.Hypercalls != 3 {
		t.Errorf("%d hypercalls, 3 were made", s.Hypercalls)
	}
	if s.Wakeups == 0 {
		t.Error("a sleep is no wake-up")
	}
	if m.counters.io == nil {
		t.Log("this kernel does not count reads and writes")
	} else if s.ReadsWrites < 50 || s.ReadsWrites > 150 { // the runtime may write, too
		t.Errorf("%d reads and writes, 50 were made", s.ReadsWrites)
	}
	// What is not counted is left out, and not guessed.
	m.counters.close()
	m.begin(reasonTimer)
	if s := m.end(); s.ReadsWrites != 0 {
		t.Errorf("%d reads and writes without a count of them", s.ReadsWrites)
	}
}

func TestField(t *testing.T) {
	text := []byte("rchar: 7\nwchar: 8\nsyscr: 4294967297\nsyscw: 12\n")
	if n := field(text, "syscr: "); n != 1<<32+1 {
		t.Errorf("%d", n)
	}
	if n := field(text, "syscw: "); n != 12 {
		t.Errorf("%d", n)
	}
	if n := field(text, "absent: "); n != 0 {
		t.Errorf("%d", n)
	}
}

func TestCountersDoNotAllocate(t *testing.T) {
	c := newCounters(privcmd.Simulated(nil))
	defer c.close()
	if n := testing.AllocsPerRun(100, func() { c.read() }); n != 0 {
		t.Errorf("a reading allocates %v times", n)
	}
}

func BenchmarkCounters(b *testing.B) {
	c := newCounters(privcmd.Simulated(nil))
	defer c.close()
	b.ReportAllocs()
	for b.Loop() {
		c.read()
	}
}
