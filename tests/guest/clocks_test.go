// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"testing"
	"time"

	"github.com/kemari-ft/kemari/tests/check"
)

// at is what a sane guest with a TSC of 2 GHz sees after ms milliseconds.
func at(ms int64) sample {
	return sample{mono: ms * 1e6, tsc: uint64(ms) * 2e6, steal: []int64{ms * 1e5, 0}, sameID: true, by: ms * 1e6}
}

func watch(samples ...sample) check.ClockStatus {
	c := clockState{hz: 2e9}
	for _, s := range samples {
		c.add(s, 50*time.Millisecond)
	}
	return c.st
}

func TestClockStateSaneGuest(t *testing.T) {
	var run []sample
	for ms := int64(1000); ms < 5000; ms += 51 {
		run = append(run, at(ms))
	}
	if st := watch(run...); st.Anomalies != 0 || st.BootIDChanges != 0 || st.Samples != uint64(len(run)) {
		t.Errorf("%+v", st)
	}
}

func TestClockStateNamesWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		what  string
		spoil func(*sample)
		size  int64
	}{
		{check.MonoBack, func(s *sample) { s.mono = 999e6; s.loose = true }, 51e6},
		{check.MonoBack, func(s *sample) { *s = at(1049) }, 1e6}, // the TSC as well
		{check.TSCBack, func(s *sample) { s.tsc = 1000*2e6 - 2000 }, 1000},
		{check.StealBack, func(s *sample) { s.steal[1] = -1e7 }, 1e7},
		{check.MonoJump, func(s *sample) { *s = at(4000) }, 2950e6},
		{check.Skew, func(s *sample) { s.tsc += 20e6 }, 10e6},
		{check.StealJump, func(s *sample) { s.steal[1] = 1e9 }, 950e6},
	} {
		s := at(1050)
		c.spoil(&s)
		st := watch(at(1000), s)
		if st.Anomalies != 1 || st.Recent[0].What != c.what || st.Recent[0].SizeNs != c.size || st.WorstNs != c.size {
			t.Errorf("%s of %d ns: %+v", c.what, c.size, st)
		}
	}
	other := at(1050)
	other.sameID = false
	if st := watch(at(1000), other); st.BootIDChanges != 1 {
		t.Errorf("another boot id: %+v", st)
	}
}

func TestClockStateKeepsTheLastSteps(t *testing.T) {
	var run []sample
	for i := range int64(100) {
		run = append(run, at(1000+i*1000))
	}
	st := watch(run...)
	if st.Anomalies != 99 || len(st.Recent) != recentSteps || st.Recent[recentSteps-1].AtNs != run[99].mono {
		t.Errorf("%d anomalies, %d kept, last %+v", st.Anomalies, len(st.Recent), st.Recent[len(st.Recent)-1])
	}
}

// TestClockStateStealUntilItIsRead: what passes between the reading of the clocks
// and that of the steal time counts.
func TestClockStateStealUntilItIsRead(t *testing.T) {
	late := at(1050)
	late.steal[0], late.by = at(1000).steal[0]+150e6, 1150e6
	if st := watch(at(1000), late); st.Anomalies != 0 {
		t.Errorf("%+v", st)
	}
	late.steal[0] += 25e6
	if st := watch(at(1000), late); st.Anomalies != 1 || st.Recent[0].What != check.StealJump {
		t.Errorf("%+v", st)
	}
}

// The caller reuses the slice of steal times for the next sample.
func TestClockStateCopiesSteal(t *testing.T) {
	c := clockState{hz: 2e9}
	s := at(1000)
	s.steal = []int64{7e9}
	c.add(s, 50*time.Millisecond)
	s2 := at(1050)
	s2.steal = append(s.steal[:0], 6e9)
	c.add(s2, 50*time.Millisecond)
	if c.st.Anomalies != 1 || c.st.Recent[0].What != check.StealBack {
		t.Errorf("%+v", c.st)
	}
}

func TestWatcherSamplesWithoutGarbage(t *testing.T) {
	id, err := bootID()
	if err != nil {
		t.Fatal(err)
	}
	w, err := newWatcher(id, 1, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var s sample
	if n := testing.AllocsPerRun(20, func() { s, err = w.look(); w.state.add(s, 0) }); n != 0 || err != nil {
		t.Errorf("%v allocations a sample (%v): the idle guest would dirty its heap", n, err)
	}
	if !s.sameID || len(s.steal) == 0 || w.state.st.BootIDChanges != 0 {
		t.Errorf("sample %+v", s)
	}
}
