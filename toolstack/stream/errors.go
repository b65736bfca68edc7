// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"errors"
	"fmt"
)

// What can be wrong with a stream.  An error of this package matches exactly
// one of them with errors.Is, unless it comes from the connection.
var (
	ErrTorn        = errors.New("stream ends in the middle")
	ErrCorrupt     = errors.New("malformed or corrupt")
	ErrSequence    = errors.New("out of sequence")
	ErrLimit       = errors.New("limit exceeded")
	ErrUnsupported = errors.New("not supported")
)

// Error says where in a stream something was wrong.  After one the stream is
// of no further use: the reader cannot know where the next record starts.
type Error struct {
	Record uint64     // number of the record, from 0; the header is none
	Type   RecordType // 0 if the record's type was not read
	Offset uint64     // of the record's first octet in the stream
	Err    error
}

func (e *Error) Error() string {
	if e.Type == 0 {
		return fmt.Sprintf("kemari stream, record %d at octet %d: %v", e.Record, e.Offset, e.Err)
	}
	return fmt.Sprintf("kemari stream, record %d (%v) at octet %d: %v", e.Record, e.Type, e.Offset, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

func corruptf(format string, args ...any) error  { return kindf(ErrCorrupt, format, args...) }
func sequencef(format string, args ...any) error { return kindf(ErrSequence, format, args...) }
func limitf(format string, args ...any) error    { return kindf(ErrLimit, format, args...) }

func kindf(kind error, format string, args ...any) error {
	return fmt.Errorf("%w: %s", kind, fmt.Sprintf(format, args...))
}
