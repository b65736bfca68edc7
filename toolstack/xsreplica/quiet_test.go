// SPDX-License-Identifier: Apache-2.0

package xsreplica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/kemari-ft/kemari/xen/abi"
)

// What oxenstored's do_debug prints for a connection at rest.
const idleXenbus = "xenbus: XenBus state: partial_in: 16 needed, partial_out: 0 bytes, pkt_out: 0 packets, " +
	"BoundedQueue capacity: 8294, used: {\twatch_event: 0\tcommand_reply: 0}; overflow queue length: 0, can_input: true, " +
	"has_more_input: false, has_old_output: false, has_new_output: false, has_more_work: false. " +
	"pending: Watches with pending events: 0, pending events total: 0"

const openTxn = "paths: 1, operations: 3, quota_reached: false\n"

func TestConnectionBusy(t *testing.T) {
	if busy, err := ConnectionBusy(idleXenbus, ""); busy != "" || err != nil {
		t.Errorf("idle: %q %v", busy, err)
	}
	for _, tc := range []struct{ from, to, want string }{
		{"partial_in: 16", "partial_in: 5", "part of a request"},
		{"partial_out: 0", "partial_out: 9", "reply"},
		{"pkt_out: 0", "pkt_out: 2", "replies"},
		{"length: 0", "length: 1", "watch events"},
		{"has_more_input: false", "has_more_input: true", "read"},
		{"has_old_output: false", "has_old_output: true", "output"},
		{"has_new_output: false", "has_new_output: true", "output"},
		{"has_more_work: false", "has_more_work: true", "to do"},
		{"total: 0", "total: 3", "watch events"},
	} {
		s := strings.Replace(idleXenbus, tc.from, tc.to, 1)
		if busy, err := ConnectionBusy(s, ""); err != nil || !strings.Contains(string(busy), tc.want) {
			t.Errorf("%s: %q %v", tc.to, busy, err)
		}
	}
	if busy, err := ConnectionBusy(idleXenbus, openTxn+openTxn); err != nil || busy != "2 transactions are open" {
		t.Errorf("transactions: %q %v", busy, err)
	}
	// "OK" is what oxenstored answers when it knows no such domain, and
	// another daemon answers anything: neither must pass for quiet.
	for _, answers := range [][2]string{{"OK", ""}, {"", ""}, {idleXenbus, "OK"}, {idleXenbus + "x", ""}} {
		if _, err := ConnectionBusy(answers[0], answers[1]); err == nil {
			t.Errorf("%q was understood", answers)
		}
	}
}

// put appends a request to an image as a guest's driver would and lets
// xenstored read it.
func put(page []byte, b []byte) {
	le := binary.LittleEndian
	prod := le.Uint32(page[offReqProd:])
	for _, c := range b {
		page[prod%abi.XenstoreRingSize] = c
		prod++
	}
	le.PutUint32(page[offReqProd:], prod)
	le.PutUint32(page[offReqCons:], prod)
}

func TestRingBusy(t *testing.T) {
	le := binary.LittleEndian
	fresh := func() []byte { return make([]byte, abi.PageSize) }
	if busy := RingBusy(fresh()); busy != "" {
		t.Errorf("fresh page: %s", busy)
	}
	for name, off := range map[string]int{"request": offReqProd, "reply": offRspProd, "reconnecting": offConnection} {
		page := fresh()
		le.PutUint32(page[off:], 1)
		if RingBusy(page) == "" {
			t.Errorf("%s: quiet", name)
		}
	}
	if RingBusy(fresh()[:100]) == "" {
		t.Error("short page: quiet")
	}
}

// TestHalfWrittenRequest: the guest was stopped between a header and the last
// 16 bytes of its body, which xenstored reports as it reports rest.
func TestHalfWrittenRequest(t *testing.T) {
	for _, start := range []uint32{0, 1, 1010, 0xffffffff - 20} {
		for body := 16; body <= 1000; body += 41 {
			page := make([]byte, abi.PageSize)
			binary.LittleEndian.PutUint32(page[offReqProd:], start)
			// Two whole requests before it.
			put(page, appendMessage(nil, abi.XSRead, 7, "device/vbd/51712/state\x00"))
			put(page, appendMessage(nil, abi.XSTransactionEnd, 8, "T\x00"))
			if busy := RingBusy(page); busy != "" {
				t.Fatalf("start %d: whole requests: %s", start, busy)
			}
			m := appendMessage(nil, abi.XSWrite, 9, strings.Repeat("x", body))
			put(page, m[:len(m)-16])
			if RingBusy(page) == "" {
				t.Errorf("start %d: body of %d: a half-written request passes for quiet", start, body)
			}
			put(page, m[len(m)-16:])
			if busy := RingBusy(page); busy != "" {
				t.Errorf("start %d: body of %d: whole: %s", start, body, busy)
			}
		}
	}
}

// TestQuietTraffic: ordinary traffic of a Linux guest at rest must never look
// half written, or the guest would never be synchronised.
func TestQuietTraffic(t *testing.T) {
	page := make([]byte, abi.PageSize)
	for id := range uint32(20000) {
		var m []byte
		switch id % 5 {
		case 0:
			m = appendMessage(nil, abi.XSTransactionStart, id, "\x00")
		case 1:
			m = appendMessage(nil, abi.XSRead, id, fmt.Sprintf("device/vbd/%d/state\x00", id%97))
		case 2:
			m = appendMessage(nil, abi.XSWrite, id, fmt.Sprintf("device/vbd/51712/ring-ref\x00%d", id))
		case 3:
			m = appendMessage(nil, abi.XSTransactionEnd, id, "T\x00")
		case 4:
			m = appendMessage(nil, abi.XSWatch, id, fmt.Sprintf("/local/domain/0/backend/vbd3/4242/51712/state\x00FFFF%d\x00", id*7))
		}
		if id%5 != 0 && id%5 != 1 && id%5 != 2 {
			binary.LittleEndian.PutUint32(m[8:], id/5) // tx_id
		}
		put(page, m)
		if busy := RingBusy(page); busy != "" {
			t.Fatalf("after request %d: %s", id, busy)
		}
	}
}

func TestJudge(t *testing.T) {
	page := make([]byte, abi.PageSize)
	never := func(...string) (string, error) { t.Error("xenstored was asked"); return "", nil }
	if busy, err := Judge(page, page, false, dom, never); busy != "" || err != nil {
		t.Errorf("port not used: %q %v", busy, err)
	}
	binary.LittleEndian.PutUint32(page[offReqProd:], 1)
	if busy, _ := Judge(page, page, true, dom, never); busy == "" {
		t.Error("a busy ring passes for quiet")
	}
	page[offReqProd] = 0
	var asked []string
	txn := ""
	oxenstored := func(args ...string) (string, error) {
		asked = append(asked, strings.Join(args, " "))
		if args[0] == "txn" {
			return txn, nil
		}
		return idleXenbus, nil
	}
	if busy, err := Judge(page, page, true, dom, oxenstored); busy != "" || err != nil || strings.Join(asked, ",") != "xenbus 4242,txn 4242" {
		t.Errorf("%q %v after %v", busy, err, asked)
	}
	// It still owed a reply when the image was made, and has written it since.
	answered := bytes.Clone(page)
	owing := func(args ...string) (string, error) {
		binary.LittleEndian.PutUint32(answered[offRspProd:], 88)
		return oxenstored(args...)
	}
	if busy, err := Judge(bytes.Clone(page), answered, true, dom, owing); busy == "" || err != nil {
		t.Errorf("a reply that is in the page and not in the image: %q %v", busy, err)
	}
	txn = openTxn
	if busy, err := Judge(page, page, true, dom, oxenstored); busy == "" || err != nil {
		t.Errorf("open transaction: %q %v", busy, err)
	}
	gone := errors.New("gone")
	if _, err := Judge(page, page, true, dom, func(...string) (string, error) { return "", gone }); !errors.Is(err, gone) {
		t.Errorf("error %v", err)
	}
}
