// SPDX-License-Identifier: Apache-2.0

package pair

import (
	"encoding/binary"
	"slices"
	"testing"
)

func TestCountTrace(t *testing.T) {
	rec := func(event, extra uint32, cycles bool) []byte {
		h := event | extra<<28
		n := 4 * (1 + int(extra))
		if cycles {
			h |= 1 << 31
			n += 8
		}
		b := make([]byte, n)
		binary.LittleEndian.PutUint32(b, h)
		return b
	}
	var b []byte
	for range 3 {
		b = append(b, rec(0x1f003, 2, false)...) // of another CPU from here on
		b = append(b, rec(TraceNestedFault, 6, true)...)
		b = append(b, rec(0x82014, 1, true)...)
	}
	if n, err := CountTrace(b, TraceNestedFault); n != 3 || err != nil {
		t.Errorf("%d nested faults, %v; want 3", n, err)
	}
	for what, bad := range map[string][]byte{
		"lost records": slices.Concat(b, rec(traceLost, 4, true)),
		"a torn end":   b[:len(b)-1],
		"odd octets":   slices.Concat(b, []byte{1, 2}),
	} {
		if _, err := CountTrace(bad, TraceNestedFault); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}
