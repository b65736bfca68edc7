// SPDX-License-Identifier: Apache-2.0

package ether

import (
	"encoding/binary"
	"io"
	"slices"
	"time"
)

// A capture writes the classic pcap format, microsecond variant. See
// draft-ietf-opsawg-pcap.
type capture struct {
	w   io.Writer
	err error
}

const linkTypeEthernet = 1

// Capture writes every frame that enters the switch to w, before impairments,
// until stop is called; stop returns the first error of a write.
func (n *Network) Capture(w io.Writer) (stop func() error, err error) {
	h := binary.LittleEndian.AppendUint32(nil, 0xa1b2c3d4)
	h = binary.LittleEndian.AppendUint16(h, 2) // version 2.4
	h = binary.LittleEndian.AppendUint16(h, 4)
	h = append(h, make([]byte, 8)...) // time zone, accuracy: unused
	h = binary.LittleEndian.AppendUint32(h, MaxFrame)
	h = binary.LittleEndian.AppendUint32(h, linkTypeEthernet)
	if _, err := w.Write(h); err != nil {
		return nil, err
	}
	c := &capture{w: w}
	n.mu.Lock()
	n.captures = append(n.captures, c)
	n.mu.Unlock()
	return func() error {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.captures = slices.DeleteFunc(n.captures, func(x *capture) bool { return x == c })
		return c.err
	}, nil
}

// write runs under the network's mu.
func (c *capture) write(at time.Time, frame []byte) {
	if c.err != nil {
		return
	}
	b := make([]byte, 0, 16+len(frame))
	b = binary.LittleEndian.AppendUint32(b, uint32(at.Unix()))
	b = binary.LittleEndian.AppendUint32(b, uint32(at.Nanosecond()/1000))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(frame)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(frame)))
	_, c.err = c.w.Write(append(b, frame...))
}
