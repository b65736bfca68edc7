// SPDX-License-Identifier: Apache-2.0

package blkif

import (
	"sync"

	"github.com/kemari-ft/kemari/xen/gntdev"
)

// memStore is a disk in memory that can be held up and made to fail.
type memStore struct {
	mu      sync.Mutex
	data    []byte
	writes  []int64 // offsets, in the order done
	flushes int
	err     error
	sector  int

	arrived chan string // if not nil, each access announces itself here
	proceed chan struct{}
}

func newMemStore() *memStore { return &memStore{data: make([]byte, diskSize), sector: 512} }

func (m *memStore) enter(what string) {
	if m.arrived != nil {
		m.arrived <- what
		<-m.proceed
	}
	m.mu.Lock()
}

func (m *memStore) ReadAt(p []byte, off int64) (int, error) {
	m.enter("read")
	defer m.mu.Unlock()
	return copy(p, m.data[off:off+int64(len(p))]), m.err
}

func (m *memStore) WriteAt(p []byte, off int64) (int, error) {
	m.enter("write")
	defer m.mu.Unlock()
	m.writes = append(m.writes, off)
	return copy(m.data[off:off+int64(len(p))], p), m.err
}

func (m *memStore) Flush() error {
	m.enter("flush")
	defer m.mu.Unlock()
	m.flushes++
	return m.err
}

func (m *memStore) Discard(off, n int64) error {
	m.enter("discard")
	defer m.mu.Unlock()
	clear(m.data[off : off+n])
	return m.err
}

func (m *memStore) Size() int64     { return int64(len(m.data)) }
func (m *memStore) SectorSize() int { return m.sector }
func (m *memStore) Close() error    { return nil }

func (m *memStore) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

func (m *memStore) written() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.writes)
}

// nullStore does nothing, at once.
type nullStore struct{}

func (nullStore) ReadAt(p []byte, _ int64) (int, error)  { return len(p), nil }
func (nullStore) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (nullStore) Flush() error                           { return nil }
func (nullStore) Discard(int64, int64) error             { return nil }
func (nullStore) Size() int64                            { return diskSize }
func (nullStore) SectorSize() int                        { return 512 }
func (nullStore) Close() error                           { return nil }

// nullGrants maps rings and copies nothing.
type nullGrants struct{ Grants }

func (nullGrants) Copy(segs []gntdev.CopySegment) error {
	for k := range segs {
		segs[k].Status = 0
	}
	return nil
}
