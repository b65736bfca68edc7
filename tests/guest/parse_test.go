// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseParams(t *testing.T) {
	p, err := parseParams("console=hvc0 quiet guest.table_mib=8 guest.tick_ms=100 guest.disk=/dev/vda\n")
	if want := (params{tableMiB: 8, tick: 100 * time.Millisecond, disk: "/dev/vda"}); err != nil || p != want {
		t.Errorf("%+v, %v", p, err)
	}
	p, err = parseParams("guest.table_mib=0 guest.tick_ms=x guest.colour=red")
	if want := (params{tableMiB: 1, tick: time.Second}); p != want {
		t.Errorf("with bad words: %+v, want the defaults", p)
	}
	for _, word := range []string{"guest.table_mib=0", "guest.tick_ms=x", "guest.colour"} {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%v does not name %s", err, word)
		}
	}
}

func TestParseLoad(t *testing.T) {
	for _, s := range []string{"idle", "cpu", "disk", "mem=20,16", "mem=1,256"} {
		if l, err := parseLoad(s); err != nil || l.String() != s {
			t.Errorf("%q: %v, %v", s, l, err)
		}
	}
	if l, err := parseLoad("mem=5"); err != nil || l.String() != "mem=5,16" {
		t.Errorf("without a set: %v, %v", l, err)
	}
	for _, s := range []string{"", "mem", "mem=", "mem=0", "mem=-1", "mem=5,", "mem=5,0", "mem=5,9999", "mem=99999", "mem=5,6,7", "5", "swap"} {
		if l, err := parseLoad(s); err == nil {
			t.Errorf("%q read as %v", s, l)
		}
	}
}

func TestParseSteal(t *testing.T) {
	const stat = "cpu  10 0 20 30 0 0 0 305 0 0\ncpu0 5 0 10 15 0 0 0 300 0 0\ncpu1 5 0 10 15 0 0 0 5 0 0\nintr 1 2 3\n"
	want := []int64{3e9, 5e7}
	if got := parseSteal([]byte(stat), nil); !slices.Equal(got, want) {
		t.Errorf("steal %v, want %v ns", got, want)
	}
	for cut := range len(stat) { // never out of bounds
		parseSteal([]byte(stat[:cut]), nil)
	}
}
