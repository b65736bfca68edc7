// SPDX-License-Identifier: Apache-2.0

package channel

import (
	"encoding/binary"
	"fmt"
	"io"
)

// A frame is a 9-octet header and its payload:
//
//	0       4        8      9
//	+-------+--------+------+---------...
//	| length| stream | kind | payload
//	+-------+--------+------+---------...
//
// length counts the payload only; numbers are big-endian. A stream is one
// request; its number is chosen by the client and never 0.
const (
	headerLen = 9
	// MaxPayload bounds one frame, so that a single busy stream cannot keep
	// the others off the wire for long.
	MaxPayload = 32 << 10
)

type kind uint8

const (
	kindHello   kind = iota // server to client, stream 0: it is there
	kindRequest             // client: JSON Request, opens the stream
	kindStdin               // client: input octets
	kindEOF                 // client: no more input
	kindSignal              // client: one octet, signal number
	kindStdout              // server: output octets
	kindStderr              // server: error output octets
	kindExit                // server: JSON Status, closes the stream
	kindCredit              // both: uint32, octets the peer may send further
	kindLast
)

type frame struct {
	stream  uint32
	kind    kind
	payload []byte
}

func appendFrame(b []byte, f frame) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(f.payload)))
	b = binary.BigEndian.AppendUint32(b, f.stream)
	b = append(b, byte(f.kind))
	return append(b, f.payload...)
}

// readFrame reads one frame. It returns io.EOF only between two frames.
func readFrame(r io.Reader) (frame, error) {
	var h [headerLen]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return frame{}, err
	}
	n := binary.BigEndian.Uint32(h[0:])
	f := frame{stream: binary.BigEndian.Uint32(h[4:]), kind: kind(h[8])}
	if n > MaxPayload {
		return frame{}, fmt.Errorf("channel: frame of %d octets, the limit is %d", n, MaxPayload)
	}
	if f.kind >= kindLast {
		return frame{}, fmt.Errorf("channel: unknown frame kind %d", f.kind)
	}
	f.payload = make([]byte, n)
	if _, err := io.ReadFull(r, f.payload); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return frame{}, err
	}
	return f, nil
}
