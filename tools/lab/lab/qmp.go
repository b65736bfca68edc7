// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// qmp speaks QEMU's machine protocol: one JSON object per line, answers in
// order, events in between. See docs/interop/qmp-spec.rst of QEMU.
type qmp struct {
	conn net.Conn
	mu   sync.Mutex // one command at a time
	r    *bufio.Reader
	init bool // protected by mu: capabilities were negotiated
}

func newQMP(conn net.Conn) *qmp { return &qmp{conn: conn, r: bufio.NewReader(conn)} }

type qmpAnswer struct {
	Return json.RawMessage
	Error  *struct{ Class, Desc string }
}

func (q *qmp) do(ctx context.Context, command string, args any) (json.RawMessage, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { q.conn.SetDeadline(time.Now()) })
	defer stop()
	if !q.init {
		if _, err := q.roundTrip("qmp_capabilities", nil); err != nil {
			return nil, err
		}
		q.init = true
	}
	return q.roundTrip(command, args)
}

func (q *qmp) roundTrip(command string, args any) (json.RawMessage, error) {
	line, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{command, args})
	if err != nil {
		return nil, err
	}
	if _, err := q.conn.Write(append(line, '\n')); err != nil {
		return nil, fmt.Errorf("QMP %s: %w", command, err)
	}
	for {
		line, err := q.r.ReadBytes('\n')
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, fmt.Errorf("QMP %s: %w", command, err)
		}
		var a qmpAnswer
		if err := json.Unmarshal(line, &a); err != nil {
			return nil, fmt.Errorf("QMP %s: %w", command, err)
		}
		if a.Error != nil {
			return nil, fmt.Errorf("QMP %s: %s: %s", command, a.Error.Class, a.Error.Desc)
		}
		if a.Return != nil {
			return a.Return, nil // a line with neither is the greeting or an event
		}
	}
}
