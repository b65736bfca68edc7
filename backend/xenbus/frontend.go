// SPDX-License-Identifier: Apache-2.0

package xenbus

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"

	"github.com/kemari-ft/kemari/backend/blkif"
	"github.com/kemari-ft/kemari/xen/abi"
)

// protocolABI is XEN_IO_PROTO_ABI_X86_64 of xen/include/public/io/protocols.h.
// A 32-bit front end lays out its requests differently.
const protocolABI = "x86_64-abi"

// maxPort is EVTCHN_FIFO_NR_CHANNELS of xen/include/public/event_channel.h.
const maxPort = 1 << 17

// readChannels reads and checks what the front end offers. See "Frontend XenBus
// Nodes" in xen/include/public/io/blkif.h.
func readChannels(st Tx, frontend string) ([]blkif.QueueChannel, error) {
	proto, err := st.Read(path.Join(frontend, "protocol"))
	if err != nil {
		return nil, fmt.Errorf("front end's protocol: %w", err)
	}
	if proto != protocolABI {
		return nil, fmt.Errorf("front end's protocol is %.32q, only %q is served", proto, protocolABI)
	}
	queues, err := readNumber(st, frontend, "multi-queue-num-queues", 1, 1, blkif.MaxQueues)
	if err != nil {
		return nil, err
	}
	order, err := readNumber(st, frontend, "ring-page-order", 0, 0, blkif.MaxRingOrder)
	if err != nil {
		return nil, err
	}
	ch := make([]blkif.QueueChannel, queues)
	for n := range ch {
		dir := frontend
		if queues > 1 {
			dir = path.Join(frontend, fmt.Sprintf("queue-%d", n))
		}
		if ch[n], err = readQueue(st, dir, order); err != nil {
			return nil, err
		}
	}
	return ch, nil
}

func readQueue(st Tx, dir string, order uint64) (c blkif.QueueChannel, err error) {
	refs := make([]string, 1<<order)
	for k := range refs {
		refs[k] = fmt.Sprintf("ring-ref%d", k)
	}
	if order == 0 {
		// Note 6 in blkif.h: a ring of one page has no number, mostly.
		if _, err := st.Read(path.Join(dir, refs[0])); errors.Is(err, fs.ErrNotExist) {
			refs[0] = "ring-ref"
		}
	}
	for _, key := range refs {
		ref, err := readNumber(st, dir, key, missing, 0, 1<<32-1)
		if err != nil {
			return c, err
		}
		c.Refs = append(c.Refs, abi.GrantRef(ref))
	}
	port, err := readNumber(st, dir, "event-channel", missing, 1, maxPort-1)
	c.Port = abi.Port(port)
	return c, err
}

// missing as a default says that there is none.
const missing = ^uint64(0)

// readNumber reads a decimal number written by the guest.
func readNumber(st Tx, dir, key string, def, low, high uint64) (uint64, error) {
	s, err := st.Read(path.Join(dir, key))
	if errors.Is(err, fs.ErrNotExist) && def != missing {
		return def, nil
	} else if err != nil {
		return 0, fmt.Errorf("front end's %s: %w", key, err)
	}
	v, err := strconv.ParseUint(s, 10, 64)
	if err != nil || v < low || v > high {
		return 0, fmt.Errorf("front end's %s is %.32q, not a number from %d to %d", key, s, low, high)
	}
	return v, nil
}

// readState reads an end's state; a node that is missing or makes no sense is
// Unknown.
func readState(st Tx, dir string) (abi.XenbusState, error) {
	s, err := st.Read(path.Join(dir, "state"))
	if errors.Is(err, fs.ErrNotExist) {
		return abi.XenbusUnknown, nil
	} else if err != nil {
		return abi.XenbusUnknown, err
	}
	v, err := strconv.ParseUint(s, 10, 32)
	if err != nil || v > uint64(abi.XenbusReconfigured) {
		return abi.XenbusUnknown, nil
	}
	return abi.XenbusState(v), nil
}
