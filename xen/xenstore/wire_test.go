// SPDX-License-Identifier: Apache-2.0

package xenstore

import (
	"bytes"
	"io"
	"slices"
	"syscall"
	"testing"

	"github.com/kemari-ft/kemari/xen/abi"
)

func TestSplitStrings(t *testing.T) {
	for in, want := range map[string][]string{
		"":               nil,
		"a\x00":          {"a"},
		"a":              {"a"},
		"a\x00b\x00":     {"a", "b"},
		"a\x00\x00b\x00": {"a", "", "b"},
	} {
		if got := splitStrings([]byte(in)); !slices.Equal(got, want) {
			t.Errorf("%q: %q", in, got)
		}
	}
}

func TestUnknownErrorName(t *testing.T) {
	e := newError("READ", "/a", []byte("EWHATEVER\x00"))
	if e.Errno != syscall.EIO || e.Name != "EWHATEVER" {
		t.Errorf("%+v", e)
	}
}

func FuzzReadMessage(f *testing.F) {
	f.Add([]byte{})
	f.Add(append(appendHeader(nil, abi.XSRead, 1, 2, 3), "abc"...))
	f.Add(appendHeader(nil, abi.XSWatchEvent, 0, 0, 1<<31))
	f.Add(append(appendHeader(nil, abi.XSWatchEvent, 0, 0, 6), "/a\x00w1\x00"...))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		c := &Client{conn: nopConn{}, pending: map[uint32]chan message{1: make(chan message, 1)},
			watches: map[string]*Watch{"w1": {wake: make(chan struct{}, 1)}}, done: make(chan struct{})}
		for {
			start := len(b) - r.Len()
			m, err := readMessage(r)
			if err != nil {
				break
			}
			again := append(appendHeader(nil, m.typ, m.reqID, m.txID, len(m.payload)), m.payload...)
			if !bytes.Equal(again, b[start:len(b)-r.Len()]) {
				t.Fatalf("%x became %x", b[start:], again)
			}
			if _, err := checkReply(m, abi.XSRead, "/a"); err != nil && err.Error() == "" {
				t.Fatal("an error without text")
			}
			if c.dispatch(m) != nil {
				break
			}
		}
	})
}

type nopConn struct{ io.ReadWriter }

func (nopConn) Close() error { return nil }
