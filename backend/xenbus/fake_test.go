// SPDX-License-Identifier: Apache-2.0

package xenbus

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/kemari-ft/kemari/backend/blkif"
	"github.com/kemari-ft/kemari/backend/gate"
	"github.com/kemari-ft/kemari/xen/abi"
)

// memStore is xenstore in memory: only leaves are kept. It logs what is written
// through it.
type memStore struct {
	mu      sync.Mutex
	nodes   map[string]string
	log     *strings.Builder
	watches map[int]watch
	nextID  int
}

type watch struct {
	path string
	ch   chan string
}

func newMemStore(log *strings.Builder) *memStore {
	return &memStore{nodes: map[string]string{}, log: log, watches: map[int]watch{}}
}

func (m *memStore) Read(path string) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if v, ok := m.nodes[path]; ok {
		return v, nil
	}
	return "", fmt.Errorf("reading %s: %w", path, fs.ErrNotExist)
}

func (m *memStore) Write(path, value string) error {
	fmt.Fprintf(m.log, "write %s = %q\n", path, value)
	m.set(path, value)
	return nil
}

// set writes without a trace in the log: somebody else did it.
func (m *memStore) set(path, value string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.nodes[path] = value
	m.fire(path)
}

func (m *memStore) rm(path string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.nodes, func(p, _ string) bool { return p == path || strings.HasPrefix(p, path+"/") })
	m.fire(path)
}

func (m *memStore) fire(path string) {
	for _, w := range m.watches {
		if path == w.path || strings.HasPrefix(path, w.path+"/") {
			w.ch <- path
		} else if strings.HasPrefix(w.path, path+"/") {
			w.ch <- w.path
		}
	}
}

func (m *memStore) List(path string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := map[string]bool{}
	for p := range m.nodes {
		if rest, ok := strings.CutPrefix(p, path+"/"); ok {
			name, _, _ := strings.Cut(rest, "/")
			names[name] = true
		}
	}
	if len(names) == 0 {
		return nil, fs.ErrNotExist
	}
	return slices.Sorted(maps.Keys(names)), nil
}

func (m *memStore) Share(path string, dom abi.DomID) error {
	fmt.Fprintf(m.log, "share %s with %s\n", path, dom)
	return nil
}

func (m *memStore) Transaction(fn func(Tx) error) error { return fn(m) }

func (m *memStore) Watch(path string) (<-chan string, func(), error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	id := m.nextID
	m.nextID++
	ch := make(chan string, 1024)
	ch <- path
	m.watches[id] = watch{path, ch}
	return ch, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.watches, id)
	}, nil
}

// fakeDevice logs what it is asked to do.
type fakeDevice struct {
	mu     sync.Mutex
	log    *strings.Builder
	broken *string     // the error of all calls; nil or empty: none
	done   chan string // if not nil, gets each call's name
}

func (f *fakeDevice) note(format string, a ...any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := fmt.Sprintf(format, a...)
	fmt.Fprintf(f.log, "device: %s\n", s)
	if f.done != nil {
		name, _, _ := strings.Cut(s, " ")
		f.done <- name
	}
	if f.broken != nil && *f.broken != "" {
		return errors.New(*f.broken)
	}
	return nil
}

func (f *fakeDevice) Info() blkif.Info { return blkif.Info{Sectors: 8192, SectorSize: 512} }

func (f *fakeDevice) Connect(ch []blkif.QueueChannel) error { return f.note("connect %+v", ch) }

func (f *fakeDevice) Attach(ch []blkif.QueueChannel, at []gate.Indices) error {
	return f.note("attach %+v at %+v", ch, at)
}

func (f *fakeDevice) Recover(ch []blkif.QueueChannel) error { return f.note("recover %+v", ch) }
func (f *fakeDevice) Disconnect() error                     { return f.note("disconnect") }
func (f *fakeDevice) Abandon() error                        { return f.note("abandon") }
func (f *fakeDevice) Close() error                          { return f.note("close") }
