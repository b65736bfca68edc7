// SPDX-License-Identifier: Apache-2.0

package xenstore

import (
	"bufio"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/kemari-ft/kemari/xen/abi"
)

// server is a small xenstored: nodes, transactions by optimistic versions,
// watches, and the quirks that a test turns on.
type server struct {
	t    *testing.T
	path string

	mu       sync.Mutex
	conn     net.Conn
	nodes    map[string]string
	perms    map[string]string
	version  int
	txs      map[uint32]*serverTx
	nextTx   uint32
	watches  map[string]string // token -> path
	partSize int               // if set, DIRECTORY answers E2BIG and parts have this size
	genBumps int               // how often DIRECTORY_PART pretends a change
	control  func(args []string) string
	requests []string
}

type serverTx struct {
	nodes   map[string]string
	version int
}

func newServer(t *testing.T) (*server, *Client) {
	t.Helper()
	s := &server{t: t, path: filepath.Join(t.TempDir(), "socket"), nodes: map[string]string{"/": ""},
		perms: map[string]string{}, txs: map[uint32]*serverTx{}, watches: map[string]string{}}
	l, err := net.Listen("unix", s.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	accepted := make(chan struct{})
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		s.conn = conn
		close(accepted)
		s.serve()
	}()
	c, err := Dial(s.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	<-accepted
	return s, c
}

func (s *server) serve() {
	r := bufio.NewReader(s.conn)
	for {
		m, err := readMessage(r)
		if err != nil {
			s.conn.Close()
			return
		}
		s.mu.Lock()
		out, errno := s.handle(m)
		if errno != "" {
			s.send(abi.XSError, m.reqID, m.txID, errno+"\x00")
		} else {
			s.send(m.typ, m.reqID, m.txID, out)
		}
		if m.typ == abi.XSWatch {
			args := splitStrings(m.payload)
			s.send(abi.XSWatchEvent, 0, 0, terminate(args[0], args[1]))
		}
		s.mu.Unlock()
	}
}

func (s *server) send(typ, reqID, txID uint32, payload string) {
	_, _ = s.conn.Write(append(appendHeader(nil, typ, reqID, txID, len(payload)), payload...))
}

// fire sends a watch event for path. s.mu is held.
func (s *server) fire(path string) {
	for token, w := range s.watches {
		if path == w || strings.HasPrefix(path, w+"/") {
			s.send(abi.XSWatchEvent, 0, 0, terminate(path, token))
		}
	}
}

func (s *server) handle(m message) (out, errno string) {
	args := splitStrings(m.payload)
	s.requests = append(s.requests, fmt.Sprintf("%s %q", opNames[m.typ], m.payload))
	nodes := s.nodes
	if m.txID != 0 {
		tx, ok := s.txs[m.txID]
		if !ok {
			return "", "ENOENT"
		}
		nodes = tx.nodes
	}
	exists := func() bool { _, ok := nodes[args[0]]; return ok }
	changed := func() {
		if m.txID == 0 {
			s.version++
			s.fire(args[0])
		}
	}
	switch m.typ {
	case abi.XSRead:
		if !exists() {
			return "", "ENOENT"
		}
		return nodes[args[0]], ""
	case abi.XSWrite, abi.XSMkdir:
		value := ""
		if m.typ == abi.XSWrite {
			_, value, _ = strings.Cut(string(m.payload), "\x00")
		}
		for p := args[0]; p != ""; p = p[:strings.LastIndexByte(p, '/')] {
			if _, ok := nodes[p]; !ok {
				nodes[p] = ""
			}
		}
		if m.typ == abi.XSWrite {
			nodes[args[0]] = value
		}
		changed()
		return "OK\x00", ""
	case abi.XSRm:
		for p := range nodes {
			if p == args[0] || strings.HasPrefix(p, args[0]+"/") {
				delete(nodes, p)
			}
		}
		changed()
		return "OK\x00", ""
	case abi.XSDirectory, abi.XSDirectoryPart:
		return s.list(m, nodes, args)
	case abi.XSGetPerms:
		return s.perms[args[0]], ""
	case abi.XSSetPerms:
		_, s.perms[args[0]], _ = strings.Cut(string(m.payload), "\x00")
		return "OK\x00", ""
	case abi.XSWatch:
		s.watches[args[1]] = args[0]
		return "OK\x00", ""
	case abi.XSUnwatch:
		if s.watches[args[1]] != args[0] {
			return "", "ENOENT"
		}
		delete(s.watches, args[1])
		return "OK\x00", ""
	case abi.XSTransactionStart:
		s.nextTx++
		tx := &serverTx{nodes: map[string]string{}, version: s.version}
		for k, v := range s.nodes {
			tx.nodes[k] = v
		}
		s.txs[s.nextTx] = tx
		return strconv.Itoa(int(s.nextTx)) + "\x00", ""
	case abi.XSTransactionEnd:
		tx := s.txs[m.txID]
		delete(s.txs, m.txID)
		if args[0] == "F" {
			return "OK\x00", ""
		}
		if tx.version != s.version {
			return "", "EAGAIN"
		}
		s.nodes = tx.nodes
		s.version++
		return "OK\x00", ""
	case abi.XSControl:
		return s.control(args), ""
	case abi.XSIntroduce, abi.XSRelease:
		return "OK\x00", ""
	case abi.XSIsDomainIntroduced:
		if args[0] == "5" {
			return "T\x00", ""
		}
		return "F\x00", ""
	case abi.XSGetDomainPath:
		return "/local/domain/" + args[0] + "\x00", ""
	}
	return "", "ENOSYS"
}

func (s *server) list(m message, nodes map[string]string, args []string) (out, errno string) {
	if _, ok := nodes[args[0]]; !ok {
		return "", "ENOENT"
	}
	var names []string
	for p := range nodes {
		if rest, ok := strings.CutPrefix(p, strings.TrimSuffix(args[0], "/")+"/"); ok && rest != "" && !strings.Contains(rest, "/") {
			names = append(names, rest)
		}
	}
	slices.Sort(names)
	all := ""
	for _, n := range names {
		all += n + "\x00"
	}
	if m.typ == abi.XSDirectory {
		if s.partSize > 0 {
			return "", "E2BIG"
		}
		return all, ""
	}
	all += "\x00"
	off, err := strconv.Atoi(args[1])
	if err != nil || off > len(all) {
		return "", "EINVAL"
	}
	if off > 0 && s.genBumps > 0 {
		s.genBumps--
		s.version++
	}
	return fmt.Sprintf("%d\x00%s", s.version, all[off:min(len(all), off+s.partSize)]), ""
}
