// SPDX-License-Identifier: Apache-2.0

package xsreplica

import (
	"encoding/binary"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/kemari-ft/kemari/xen/abi"
)

// Offsets in struct xenstore_domain_interface; see xs_wire.h.
const (
	offReq        = 0
	offRsp        = abi.XenstoreRingSize
	offReqCons    = 2 * abi.XenstoreRingSize
	offReqProd    = offReqCons + 4
	offRspCons    = offReqCons + 8
	offRspProd    = offReqCons + 12
	offConnection = offReqCons + 20
	headerLen     = 16 // sizeof(struct xsd_sockmsg)
)

// What the word at offConnection says: XENSTORE_CONNECTED, XENSTORE_RECONNECT.
const (
	connected = 0
	reconnect = 1
)

// Busy is why a store ring is not quiet; empty means that it is.
type Busy string

// RingBusy judges a private copy of the store page, made while the guest was
// frozen.  The live page must not be judged: xenstored may write to it between
// the look and the copy.
func RingBusy(page []byte) Busy {
	if len(page) != abi.PageSize {
		return Busy(fmt.Sprintf("store page of %d bytes", len(page)))
	}
	le := binary.LittleEndian
	reqCons, reqProd := le.Uint32(page[offReqCons:]), le.Uint32(page[offReqProd:])
	rspCons, rspProd := le.Uint32(page[offRspCons:]), le.Uint32(page[offRspProd:])
	switch {
	case le.Uint32(page[offConnection:]) != connected:
		return "the guest is reconnecting to xenstored"
	case reqProd != reqCons:
		return Busy(fmt.Sprintf("%d bytes of requests are not read", reqProd-reqCons))
	case rspProd != rspCons:
		return Busy(fmt.Sprintf("%d bytes of replies are not read", rspProd-rspCons))
	case splitRequest(page, reqProd):
		return "a request is half written"
	}
	return ""
}

// DropUnread takes from an image of the store page what xenstored has written
// to it and the guest has not read.
func DropUnread(image []byte) {
	copy(image[offRspProd:offRspProd+4], image[offRspCons:])
}

// splitRequest tells whether what was written last to the ring of requests is a
// message of which exactly 16 bytes are still to come.  That is the one state
// which xenstored's word does not tell from a quiet one: it says that it needs
// 16 bytes either way, to begin a header or to end that message.
//
// Messages are told from other bytes by how they follow each other: chain[o] is
// the length of the longest chain of messages that ends o bytes before the end.
// If the end is a message's, the chain to it is longer than any to a header
// that only seems to be one.
func splitRequest(page []byte, prod uint32) bool {
	word := func(at uint32) uint32 {
		var b [4]byte
		for i := range b {
			b[i] = page[offReq+(at+uint32(i))%abi.XenstoreRingSize]
		}
		return binary.LittleEndian.Uint32(b[:])
	}
	var chain [abi.XenstoreRingSize + 1]int
	split := 0
	for o := uint32(abi.XenstoreRingSize); o >= headerLen; o-- {
		typ, n := word(prod-o), word(prod-o+12)
		if typ > abi.XSDirectoryPart || n == 0 {
			continue
		}
		if n == o { // the header, o-16 bytes of the body, 16 to come
			split = max(split, chain[o]+1)
		}
		if n <= o-headerLen {
			end := o - headerLen - n
			chain[end] = max(chain[end], chain[o]+1)
		}
	}
	return split > 0 && split >= chain[0]
}

// xenbusFormat is what oxenstored answers to "xenbus D":
// tools/ocaml/xenstored/process.ml: do_debug, tools/ocaml/libs/xb/xb.ml: debug.
var xenbusFormat = regexp.MustCompile(`^xenbus: XenBus state: partial_in: (\d+) needed, partial_out: (\d+) bytes, pkt_out: (\d+) packets, ` +
	`BoundedQueue capacity: \d+, used: \{[^}]*\}; overflow queue length: (\d+), can_input: (true|false), ` +
	`has_more_input: (true|false), has_old_output: (true|false), has_new_output: (true|false), has_more_work: (true|false)\. ` +
	`pending: Watches with pending events: (\d+), pending events total: (\d+)$`)

// ConnectionBusy judges oxenstored's answers to the control commands
// "xenbus D" and "txn D".  An answer that is not understood is an error: it is
// another daemon, or another version of it.
func ConnectionBusy(xenbus, txn string) (Busy, error) {
	xenbus, txn = strings.TrimRight(xenbus, "\x00"), strings.TrimRight(txn, "\x00")
	m := xenbusFormat.FindStringSubmatch(xenbus)
	if m == nil {
		return "", fmt.Errorf("xenstored answers %.200q to xenbus: oxenstored of Xen 4.20 is needed, and the domain has to be known to it", xenbus)
	}
	for _, line := range strings.Split(txn, "\n") {
		if line != "" && !strings.HasPrefix(line, "paths: ") {
			return "", fmt.Errorf("xenstored answers %.200q to txn: oxenstored of Xen 4.20 is needed", txn)
		}
	}
	// NoHdr with a whole header to come is the state between two messages.
	if m[1] != strconv.Itoa(headerLen) {
		return Busy("xenstored has read a part of a request and needs " + m[1] + " bytes"), nil
	}
	for _, q := range []struct{ value, idle, what string }{
		{m[2], "0", "bytes of a reply are not written"},
		{m[3], "0", "replies are not written"},
		{m[4], "0", "watch events wait"},
		{m[6], "false", "xenstored has more to read"},
		{m[7], "false", "xenstored has output"},
		{m[8], "false", "xenstored has output"},
		{m[9], "false", "xenstored has more to do"},
		{m[11], "0", "watch events are pending"},
	} {
		if q.value != q.idle {
			return Busy(q.what + " (" + q.value + ")"), nil
		}
	}
	if n := strings.Count(txn, "paths: "); n > 0 {
		return Busy(fmt.Sprintf("%d transactions are open", n)), nil
	}
	return "", nil
}

// Control asks xenstored, as (*xenstore.Client).Control does.
type Control func(args ...string) (string, error)

// Judge decides whether the image of the store page that goes into an epoch is
// quiet.  portUsed tells whether the store's event channel was used since the
// last look that found it quiet; only then is xenstored asked.
//
// image is a copy of page, which xenstored writes to.  It is copied again once
// xenstored has said that it owes the guest nothing: a reply that it still owed
// when the image was made is in the page by then, and would be in no image.  The
// guest, which is frozen, would wait for it forever at the other host.
func Judge(image, page []byte, portUsed bool, dom abi.DomID, control Control) (Busy, error) {
	if busy := RingBusy(image); busy != "" || !portUsed {
		return busy, nil
	}
	id := strconv.Itoa(int(dom))
	xenbus, err := control("xenbus", id)
	if err != nil {
		return "", fmt.Errorf("ask xenstored about domain %s: %w", id, err)
	}
	txn, err := control("txn", id)
	if err != nil {
		return "", fmt.Errorf("ask xenstored about domain %s: %w", id, err)
	}
	busy, err := ConnectionBusy(xenbus, txn)
	if err != nil {
		return "", fmt.Errorf("domain %s: %w", id, err)
	}
	if busy != "" {
		return busy, nil
	}
	copy(image, page)
	return RingBusy(image), nil
}
