// SPDX-License-Identifier: Apache-2.0

// Package control is what the command kemari and the daemon say to each other
// over a unix socket: a line of JSON each way, and lines of progress before
// the answer.
package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/kemari-ft/kemari/toolstack/config"
)

// Socket is where kemarid listens.
const Socket = "/run/kemari/control.sock"

// Version of what is said. The daemon refuses any other one.
const Version = 1

// maxRequest bounds a request; maxReply, a line of an answer.
const (
	maxRequest = 64 << 10
	maxReply   = 16 << 20
)

// What can be asked for.
const (
	OpStatus    = "status"
	OpProtect   = "protect"   // Guest; Peer and Interval or what Prepare was told
	OpUnprotect = "unprotect" // Guest
	OpFailover  = "failover"  // Guest
	OpCheck     = "check"     // Peer
	OpPrepare   = "prepare"   // Name, UUID; Config: it is a first start
)

// Request is a question.
type Request struct {
	Version int    `json:"version"`
	Op      string `json:"op"`
	Guest   string `json:"guest,omitempty"` // name, domid or UUID
	Name    string `json:"name,omitempty"`
	UUID    string `json:"uuid,omitempty"`
	Peer    string `json:"peer,omitempty"`
	// Interval is the longest epoch.
	Interval time.Duration `json:"interval,omitempty"`
	// Config says that the guest's configuration asks for protection; without
	// it the daemon's own record decides.
	Config bool `json:"config,omitempty"`
	// Syncs asks for the newest syncs, too.
	Syncs bool `json:"syncs,omitempty"`
	// PeerIsOff is the operator's word in place of a fence's.
	PeerIsOff bool `json:"peer_is_off,omitempty"`
}

// Reply is a line of an answer; the last one has Done.
type Reply struct {
	Done     bool     `json:"done,omitempty"`
	Error    string   `json:"error,omitempty"`
	Progress string   `json:"progress,omitempty"`
	DomID    uint16   `json:"domid,omitempty"`
	Guests   []Guest  `json:"guests,omitempty"`
	Host     *Host    `json:"host,omitempty"`
	Reasons  []string `json:"reasons,omitempty"` // why not, for check
}

// Parse reads a request.
func Parse(line []byte) (*Request, error) {
	var r Request
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	// The version comes first: other fields may be unknown because of it.
	var v struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(line, &v); err != nil {
		return nil, fmt.Errorf("request is not readable: %w", err)
	}
	if v.Version != Version {
		return nil, fmt.Errorf("request of version %d, this kemarid speaks %d; install the same version of kemari and kemarid", v.Version, Version)
	}
	if err := d.Decode(&r); err != nil {
		return nil, fmt.Errorf("request is not readable: %w", err)
	}
	if d.More() {
		return nil, errors.New("request is followed by something else")
	}
	switch r.Op {
	case OpStatus, OpCheck:
	case OpProtect, OpUnprotect, OpFailover:
		if r.Guest == "" {
			return nil, fmt.Errorf("%s names no guest", r.Op)
		}
	case OpPrepare:
		if r.Name == "" || r.UUID == "" {
			return nil, fmt.Errorf("%s needs a name and a UUID", r.Op)
		}
	default:
		return nil, fmt.Errorf("operation %.40q is not known", r.Op)
	}
	if r.Interval != 0 && (r.Interval < config.MinInterval || r.Interval > config.MaxInterval) {
		return nil, fmt.Errorf("interval %v; allowed: %v to %v", r.Interval, config.MinInterval, config.MaxInterval)
	}
	return &r, nil
}

// Handler answers one request; it may tell of progress meanwhile. The context
// ends when nobody waits for the answer any more.
type Handler func(ctx context.Context, r *Request, progress func(string)) Reply

// Listen makes the socket, in place of one that a killed daemon has left.
func Listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, fmt.Errorf("%s: another kemarid is running", path)
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Serve answers requests until the listener is closed.
func Serve(l net.Listener, h Handler) error {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go serve(c, h)
	}
}

func serve(c net.Conn, h Handler) {
	defer c.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	in := bufio.NewReader(io.LimitReader(c, maxRequest))
	line, err := in.ReadBytes('\n')
	if err != nil {
		return // nobody to answer, or too long
	}
	out := json.NewEncoder(c)
	r, err := Parse(line)
	if err != nil {
		_ = out.Encode(Reply{Done: true, Error: err.Error()})
		return
	}
	go func() { // whoever asked has gone
		var b [1]byte
		_, _ = c.Read(b[:])
		cancel()
	}()
	reply := h(ctx, r, func(text string) {
		if out.Encode(Reply{Progress: text}) != nil {
			cancel()
		}
	})
	reply.Done = true
	_ = out.Encode(reply) // whoever asked may have gone
}

// ErrNoDaemon: nobody listens.
var ErrNoDaemon = errors.New("kemarid does not run on this host")

// Ask sends a request and returns the answer.
func Ask(path string, r Request, progress func(string)) (*Reply, error) {
	r.Version = Version
	c, err := net.Dial("unix", path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoDaemon, err)
	}
	defer c.Close()
	if err := json.NewEncoder(c).Encode(r); err != nil {
		return nil, fmt.Errorf("asking kemarid: %w", err)
	}
	in := bufio.NewScanner(c)
	in.Buffer(nil, maxReply)
	for in.Scan() {
		var reply Reply
		if err := json.Unmarshal(in.Bytes(), &reply); err != nil {
			return nil, fmt.Errorf("kemarid's answer: %w", err)
		}
		switch {
		case reply.Done && reply.Error != "":
			return &reply, errors.New(reply.Error)
		case reply.Done:
			return &reply, nil
		case progress != nil:
			progress(reply.Progress)
		}
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("kemarid's answer: %w", err)
	}
	return nil, errors.New("kemarid hung up before it answered; see its log")
}
