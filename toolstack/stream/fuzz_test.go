// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"errors"
	"hash/crc32"
	"io"
	"testing"

	"github.com/kemari-ft/kemari/xen/abi"
)

// FuzzReader feeds a reader with a hostile peer's octets.  Checksums are made
// right first, or the fuzzer would never get past them.
func FuzzReader(f *testing.F) {
	one := []content{{Generation: 7, Number: 1, Full: true, Pages: map[abi.GFN]string{0: string(testPage(1))},
		Zeros: []abi.GFN{1}, Holes: []abi.GFN{2}, State: "state", HasXenstore: true,
		Always: []AlwaysPage{{Kind: AlwaysStore, GFN: 0x1000, Data: testPage(2)}}, Rings: []Ring{{Class: RingVBD}}}}
	two := append(one, content{Generation: 7, Number: 2, Pages: map[abi.GFN]string{3: string(testPage(3))},
		Lines:  map[abi.GFN]linesOf{4: {1<<63 | 1, string(someOf(1<<63|1, testPage(4), 0x81))}},
		Always: []AlwaysPage{{Kind: AlwaysStore, GFN: 0x1000}, {Kind: AlwaysGrant, GFN: 0x1001, Lines: 1 << 7, Data: someOf(1<<7, testPage(5), 0xff)}}})
	f.Add(encode(f, one), true)
	f.Add(encode(f, two), true)
	var out bytes.Buffer
	w := NewWriter(&out)
	h := testHello
	h.Role = Secondary
	if err := errors.Join(w.Hello(h), w.Ack(7, 1), w.Heartbeat(7, 1), w.Discarded(7), w.Refuse(Refuse{Reasons: []string{"no", "never"}})); err != nil {
		f.Fatal(err)
	}
	f.Add(out.Bytes(), false)
	limits := Limits{EpochPages: 16, MemoryPages: 1 << 20, MaxGFN: 1 << 20}
	f.Fuzz(func(t *testing.T, in []byte, primary bool) {
		from := Secondary
		if primary {
			from = Primary
		}
		pool := NewPool()
		r := NewReader(bytes.NewReader(resum(in)), from, limits, pool)
		var last uint64
		for {
			msg, err := r.Next()
			var where *Error
			switch {
			case err == io.EOF:
			case err != nil && !errors.As(err, &where):
				t.Fatalf("error %v does not say where", err)
			}
			if err != nil {
				break
			}
			if e, ok := msg.(*Epoch); ok {
				if e.Number != last+1 {
					t.Fatalf("epoch %d after %d", e.Number, last)
				}
				last = e.Number
				if n := e.Pages() + e.Patches() + len(e.Zeros) + len(e.Holes); n > 16 {
					t.Fatalf("%d pages", n)
				}
				var page [abi.PageSize]byte
				for i := range e.Patches() {
					_, set, data := e.Lines(i)
					set.Patch(page[:], data)
				}
				e.Release()
			}
		}
		if len(pool.free) != cap(pool.free) {
			t.Fatal("an epoch's buffer is lost")
		}
	})
}

// resum corrects the checksums of the epochs in a stream as far as it can be
// followed.
func resum(in []byte) []byte {
	b := bytes.Clone(in)
	begin := 0
	for at := headerLen; at+recHeaderLen <= len(b); {
		n := int(le.Uint32(b[at+4:]))
		end := at + recHeaderLen + n + padLen(n)
		if n > len(b) || end > len(b) {
			break
		}
		switch RecordType(le.Uint32(b[at:])) {
		case TypeEpochBegin:
			begin = at
		case TypeEpochEnd:
			if begin != 0 && n == epochEndLen {
				le.PutUint32(b[end-4:], crc32.Checksum(b[begin:end-4], castagnoli))
			}
		}
		at = end
	}
	return b
}
