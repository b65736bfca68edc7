// SPDX-License-Identifier: Apache-2.0

package xenstore

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"syscall"

	"github.com/kemari-ft/kemari/xen/abi"
)

const headerLen = 16 // struct xsd_sockmsg

// maxReply bounds what is read into memory for one message. Over a socket,
// oxenstored answers with more than XENSTORE_PAYLOAD_MAX where a list or the
// output of a control command is longer.
const maxReply = 16 << 20

// message is a struct xsd_sockmsg and its payload.
type message struct {
	typ, reqID, txID uint32
	payload          []byte
}

func appendHeader(b []byte, typ, reqID, txID uint32, n int) []byte {
	b = binary.LittleEndian.AppendUint32(b, typ)
	b = binary.LittleEndian.AppendUint32(b, reqID)
	b = binary.LittleEndian.AppendUint32(b, txID)
	return binary.LittleEndian.AppendUint32(b, uint32(n))
}

func readMessage(r io.Reader) (message, error) {
	var h [headerLen]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return message{}, err
	}
	m := message{
		typ:   binary.LittleEndian.Uint32(h[0:]),
		reqID: binary.LittleEndian.Uint32(h[4:]),
		txID:  binary.LittleEndian.Uint32(h[8:]),
	}
	n := binary.LittleEndian.Uint32(h[12:])
	if n > maxReply {
		return message{}, fmt.Errorf("xenstore: message of %d bytes: out of step with xenstored", n)
	}
	// Grow with what arrives, not with what the header claims.
	var b bytes.Buffer
	if _, err := io.CopyN(&b, r, int64(n)); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return message{}, err
	}
	m.payload = b.Bytes()
	return m, nil
}

// splitStrings splits a payload of NUL-terminated strings. A missing last NUL is
// forgiven: not all answers of oxenstored have it.
func splitStrings(b []byte) []string {
	if len(b) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
}

// errnoByName has the names of xsd_errors in io/xs_wire.h, and EQUOTA, which
// oxenstored sends.
var errnoByName = map[string]syscall.Errno{
	"EINVAL":    syscall.EINVAL,
	"EACCES":    syscall.EACCES,
	"EEXIST":    syscall.EEXIST,
	"EISDIR":    syscall.EISDIR,
	"ENOENT":    syscall.ENOENT,
	"ENOMEM":    syscall.ENOMEM,
	"ENOSPC":    syscall.ENOSPC,
	"EIO":       syscall.EIO,
	"ENOTEMPTY": syscall.ENOTEMPTY,
	"ENOSYS":    syscall.ENOSYS,
	"EROFS":     syscall.EROFS,
	"EBUSY":     syscall.EBUSY,
	"EAGAIN":    syscall.EAGAIN,
	"EISCONN":   syscall.EISCONN,
	"E2BIG":     syscall.E2BIG,
	"EPERM":     syscall.EPERM,
	"EQUOTA":    syscall.EDQUOT,
}

// ErrNotExist is what errors about absent nodes match; it matches fs.ErrNotExist.
var ErrNotExist error = syscall.ENOENT

// Error is a request which xenstored refused. errors.Is matches its Errno.
type Error struct {
	Op    string
	Path  string        // or what the request was about
	Name  string        // as xenstored sent it
	Errno syscall.Errno // EIO for a name that is not in xs_wire.h
}

func (e *Error) Error() string {
	return fmt.Sprintf("xenstore: %s %s: xenstored answered %s", e.Op, e.Path, e.Name)
}

// Unwrap returns the errno.
func (e *Error) Unwrap() error { return e.Errno }

func newError(op, path string, payload []byte) *Error {
	name := string(bytes.TrimRight(payload, "\x00"))
	errno, ok := errnoByName[name]
	if !ok {
		errno = syscall.EIO
	}
	return &Error{Op: op, Path: path, Name: name, Errno: errno}
}

var opNames = map[uint32]string{
	abi.XSControl: "CONTROL", abi.XSDirectory: "DIRECTORY", abi.XSRead: "READ",
	abi.XSGetPerms: "GET_PERMS", abi.XSWatch: "WATCH", abi.XSUnwatch: "UNWATCH",
	abi.XSTransactionStart: "TRANSACTION_START", abi.XSTransactionEnd: "TRANSACTION_END",
	abi.XSIntroduce: "INTRODUCE", abi.XSRelease: "RELEASE", abi.XSGetDomainPath: "GET_DOMAIN_PATH",
	abi.XSWrite: "WRITE", abi.XSMkdir: "MKDIR", abi.XSRm: "RM", abi.XSSetPerms: "SET_PERMS",
	abi.XSIsDomainIntroduced: "IS_DOMAIN_INTRODUCED", abi.XSDirectoryPart: "DIRECTORY_PART",
}
