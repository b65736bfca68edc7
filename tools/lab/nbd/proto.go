// SPDX-License-Identifier: Apache-2.0

package nbd

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Numbers of the protocol. See doc/proto.md of the NetworkBlockDevice project.
const (
	magicServer   = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption   = 0x49484156454f5054 // "IHAVEOPT"
	magicOptReply = 0x0003e889045565a9
	magicRequest  = 0x25609513
	magicReply    = 0x67446698

	flagFixedNewstyle = 1 << 0 // handshake flags, both directions
	flagNoZeroes      = 1 << 1

	optExportName = 1
	optAbort      = 2
	optInfo       = 6
	optGo         = 7

	repAck        = 1
	repInfo       = 3
	repErrUnsup   = 1<<31 | 1
	repErrInvalid = 1<<31 | 3

	infoExport    = 0
	infoBlockSize = 3

	txHasFlags        = 1 << 0 // transmission flags
	txSendFlush       = 1 << 2
	txSendFUA         = 1 << 3
	txSendTrim        = 1 << 5
	txSendWriteZeroes = 1 << 6
	txCanMultiConn    = 1 << 8

	transmissionFlags = txHasFlags | txSendFlush | txSendFUA | txSendTrim | txSendWriteZeroes | txCanMultiConn

	flagFUA = 1 << 0 // command flags
)

// An Op is a command of the transmission phase.
type Op uint16

const (
	Read        Op = 0
	Write       Op = 1
	Disconnect  Op = 2
	Flush       Op = 3
	Trim        Op = 4
	WriteZeroes Op = 6
)

var opNames = map[Op]string{Read: "read", Write: "write", Disconnect: "disconnect",
	Flush: "flush", Trim: "trim", WriteZeroes: "write-zeroes"}

func (op Op) String() string {
	if s, ok := opNames[op]; ok {
		return s
	}
	return fmt.Sprintf("op %d", uint16(op))
}

// modifies tells whether the command changes the disk.
func (op Op) modifies() bool { return op == Write || op == Trim || op == WriteZeroes }

// An Errno is an error as the protocol numbers it.
type Errno uint32

const (
	EIO    Errno = 5
	EINVAL Errno = 22
	ENOSPC Errno = 28
)

const (
	requestLen   = 28
	replyLen     = 16
	maxPayload   = 32 << 20 // of one read or write; what clients may rely on
	maxOptionLen = 4096 + 64
	blockSize    = 512
)

// request is the header of a command.
type request struct {
	flags  uint16
	op     Op
	cookie uint64
	offset uint64
	length uint32
}

func parseRequest(b [requestLen]byte) (request, error) {
	if m := binary.BigEndian.Uint32(b[0:]); m != magicRequest {
		return request{}, fmt.Errorf("nbd: request begins with %#x instead of its magic number", m)
	}
	r := request{
		flags:  binary.BigEndian.Uint16(b[4:]),
		op:     Op(binary.BigEndian.Uint16(b[6:])),
		cookie: binary.BigEndian.Uint64(b[8:]),
		offset: binary.BigEndian.Uint64(b[16:]),
		length: binary.BigEndian.Uint32(b[24:]),
	}
	// A longer write cannot be skipped, since its data would have to be read.
	if r.op == Write && r.length > maxPayload {
		return request{}, fmt.Errorf("nbd: write of %d octets, the limit is %d", r.length, maxPayload)
	}
	return r, nil
}

// check says what is wrong with a request for a disk of that size, 0 if
// nothing is.
func (r request) check(size uint64) Errno {
	switch r.op {
	case Read, Write, Trim, WriteZeroes:
	case Flush:
		return 0
	default:
		return EINVAL
	}
	if r.op == Read && r.length > maxPayload {
		return EINVAL
	}
	// Written so that it cannot overflow.
	if r.offset > size || uint64(r.length) > size-r.offset {
		if r.op.modifies() {
			return ENOSPC
		}
		return EINVAL
	}
	return 0
}

func reply(cookie uint64, e Errno) []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, replyLen), magicReply)
	b = binary.BigEndian.AppendUint32(b, uint32(e))
	return binary.BigEndian.AppendUint64(b, cookie)
}

// negotiate conducts the fixed newstyle handshake and returns the name of the
// export that the client chose. It returns io.EOF for a client that aborts.
func negotiate(rw io.ReadWriter, size uint64) (name string, err error) {
	b := binary.BigEndian.AppendUint64(nil, magicServer)
	b = binary.BigEndian.AppendUint64(b, magicOption)
	b = binary.BigEndian.AppendUint16(b, flagFixedNewstyle|flagNoZeroes)
	if _, err := rw.Write(b); err != nil {
		return "", err
	}
	var flags [4]byte
	if _, err := io.ReadFull(rw, flags[:]); err != nil {
		return "", err
	}
	clientFlags := binary.BigEndian.Uint32(flags[:])
	for {
		opt, data, err := readOption(rw)
		if err != nil {
			return "", err
		}
		switch opt {
		case optExportName:
			b := binary.BigEndian.AppendUint64(nil, size)
			b = binary.BigEndian.AppendUint16(b, transmissionFlags)
			if clientFlags&flagNoZeroes == 0 {
				b = append(b, make([]byte, 124)...)
			}
			_, err := rw.Write(b)
			return string(data), err
		case optInfo, optGo:
			name, ok := exportName(data)
			if !ok {
				err = optionReply(rw, opt, repErrInvalid, nil)
				break
			}
			info := binary.BigEndian.AppendUint16(nil, infoExport)
			info = binary.BigEndian.AppendUint64(info, size)
			info = binary.BigEndian.AppendUint16(info, transmissionFlags)
			blocks := binary.BigEndian.AppendUint16(nil, infoBlockSize)
			for _, n := range []uint32{blockSize, 4096, maxPayload} {
				blocks = binary.BigEndian.AppendUint32(blocks, n)
			}
			for _, r := range []struct {
				kind uint32
				data []byte
			}{{repInfo, info}, {repInfo, blocks}, {repAck, nil}} {
				if err := optionReply(rw, opt, r.kind, r.data); err != nil {
					return "", err
				}
			}
			if opt == optGo {
				return name, nil
			}
		case optAbort:
			// The client need not wait for the answer.
			_ = optionReply(rw, opt, repAck, nil)
			return "", io.EOF
		default:
			err = optionReply(rw, opt, repErrUnsup, nil)
		}
		if err != nil {
			return "", err
		}
	}
}

func readOption(r io.Reader) (opt uint32, data []byte, err error) {
	var h [16]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, nil, err
	}
	if m := binary.BigEndian.Uint64(h[0:]); m != magicOption {
		return 0, nil, fmt.Errorf("nbd: option begins with %#x instead of its magic number", m)
	}
	n := binary.BigEndian.Uint32(h[12:])
	if n > maxOptionLen {
		return 0, nil, fmt.Errorf("nbd: option of %d octets, the limit is %d", n, maxOptionLen)
	}
	data = make([]byte, n)
	if _, err := io.ReadFull(r, data); err != nil {
		return 0, nil, err
	}
	return binary.BigEndian.Uint32(h[8:]), data, nil
}

// exportName parses the data of an INFO or GO option: a 32-bit length, the
// name, a 16-bit number of information requests, those.
func exportName(data []byte) (string, bool) {
	if len(data) < 6 {
		return "", false
	}
	n := binary.BigEndian.Uint32(data)
	if uint64(n) > uint64(len(data)-6) {
		return "", false
	}
	rest := data[4+n:]
	if len(rest) != 2+2*int(binary.BigEndian.Uint16(rest)) {
		return "", false
	}
	return string(data[4 : 4+n]), true
}

func optionReply(w io.Writer, opt, kind uint32, data []byte) error {
	b := binary.BigEndian.AppendUint64(nil, magicOptReply)
	b = binary.BigEndian.AppendUint32(b, opt)
	b = binary.BigEndian.AppendUint32(b, kind)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	_, err := w.Write(append(b, data...))
	return err
}
