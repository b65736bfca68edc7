// SPDX-License-Identifier: Apache-2.0

package blkif

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/gntdev"
)

const (
	guestDom = abi.DomID(5)
	diskSize = 4 << 20
	waitFor  = 5 * time.Second
)

// host is a fake of what a device gets from Xen: the guest's memory by grant
// reference, and event channels.
type host struct {
	mu     sync.Mutex
	rings  map[abi.GrantRef][]byte // by first reference
	pages  map[abi.GrantRef][]byte
	bound  map[abi.Port]abi.Port // local to remote
	next   abi.Port
	mapped int
	dirty  map[abi.GrantRef]bool // written to, as Xen notes it

	copying chan struct{} // if not nil, each Copy announces itself here
	proceed chan struct{} // and waits here

	notified chan abi.Port // remote ports
}

func newHost() *host {
	return &host{
		rings: map[abi.GrantRef][]byte{}, pages: map[abi.GrantRef][]byte{},
		bound: map[abi.Port]abi.Port{}, next: 100, dirty: map[abi.GrantRef]bool{}, notified: make(chan abi.Port, 4096),
	}
}

type fakeMapping struct {
	h   *host
	ref abi.GrantRef
	mem []byte
}

func (m fakeMapping) Bytes() []byte { return m.mem }
func (m fakeMapping) Close() error {
	m.h.mu.Lock()
	defer m.h.mu.Unlock()
	m.h.mapped--
	m.h.dirty[m.ref] = true // as in Xen's unmap_common_complete()
	return nil
}

func (h *host) Map(dom abi.DomID, refs []abi.GrantRef) (Mapping, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	mem := h.rings[refs[0]]
	if mem == nil {
		mem = h.pages[refs[0]]
	}
	if dom != guestDom || len(mem) != len(refs)*abi.PageSize {
		return nil, fmt.Errorf("no %d pages are granted as %v", len(refs), refs)
	}
	h.mapped++
	return fakeMapping{h, refs[0], mem}, nil
}

var errCopy = errors.New("some segments failed")

func (h *host) Copy(segs []gntdev.CopySegment) error {
	if h.copying != nil {
		h.copying <- struct{}{}
		<-h.proceed
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	failed := false
	for k := range segs {
		s := &segs[k]
		page, ok := h.pages[s.Ref]
		if !ok || len(s.Local) == 0 || int(s.Offset)+len(s.Local) > len(page) {
			s.Status = int16(abi.GNTSTBadGntref)
			failed = true
			continue
		}
		s.Status = int16(abi.GNTSTOkay)
		if s.ToGuest {
			copy(page[s.Offset:], s.Local)
			h.dirty[s.Ref] = true
		} else {
			copy(s.Local, page[s.Offset:])
		}
	}
	if failed {
		return errCopy
	}
	return nil
}

func (h *host) BindInterdomain(dom abi.DomID, remote abi.Port) (abi.Port, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.next++
	h.bound[h.next] = remote
	return h.next, nil
}

func (h *host) Unbind(p abi.Port) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.bound, p)
	return nil
}

func (h *host) Notify(p abi.Port) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	remote, ok := h.bound[p]
	if !ok {
		return fmt.Errorf("port %d is not bound", p)
	}
	h.notified <- remote
	return nil
}

func (h *host) Unmask(...abi.Port) error { return nil }

func (h *host) page(ref abi.GrantRef) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.pages[ref] == nil {
		h.pages[ref] = make([]byte, abi.PageSize)
	}
	return h.pages[ref]
}

// memory is a copy of all that is granted.
func (h *host) memory() map[abi.GrantRef]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := map[abi.GrantRef]string{}
	for ref, p := range h.pages {
		m[ref] = string(p)
	}
	for ref, p := range h.rings {
		m[ref] = string(p)
	}
	return m
}

// harvest returns what Xen has noted as written to since the last harvest.
func (h *host) harvest() map[abi.GrantRef]bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	dirty := h.dirty
	h.dirty = map[abi.GrantRef]bool{}
	return dirty
}

// bench is a device with everything around it.
type bench struct {
	*Device
	h       *host
	store   *memStore
	drivers []*driver
	syncs   chan struct{}
	failed  chan error
}

func config(t testing.TB, b *bench) Config {
	return Config{
		Dom: guestDom, ID: 51712, Store: b.store, Grants: b.h, Events: b.h,
		Journal: filepath.Join(t.TempDir(), "journal"), Workers: 4,
		NeedSync: func() {
			select {
			case b.syncs <- struct{}{}:
			default:
			}
		},
		Failed: func(err error) { b.failed <- err },
	}
}

func newBench(t testing.TB, queues, pages int, change ...func(*Config)) *bench {
	t.Helper()
	b := &bench{h: newHost(), store: newMemStore(), syncs: make(chan struct{}, 1), failed: make(chan error, 1)}
	for n := range queues {
		b.drivers = append(b.drivers, newDriver(t, b.h, n, pages))
	}
	cfg := config(t, b)
	for _, c := range change {
		c(&cfg)
	}
	d, err := NewDevice(cfg)
	if err != nil {
		t.Fatal(err)
	}
	b.Device = d
	return b
}

func (b *bench) channels() (ch []QueueChannel) {
	for _, d := range b.drivers {
		ch = append(ch, d.ch)
	}
	return ch
}

// wire lets the front ends' events reach the device.
func (b *bench) wire() {
	for n, q := range b.queues() {
		port := q.port
		b.drivers[n].event = func() { b.Event(port) }
	}
}

func connected(t testing.TB, queues, pages int, change ...func(*Config)) *bench {
	t.Helper()
	b := newBench(t, queues, pages, change...)
	if err := b.Connect(b.channels()); err != nil {
		t.Fatal(err)
	}
	b.wire()
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		if b.h.mapped != 0 || len(b.h.bound) != 0 {
			t.Errorf("%d mappings and %d ports are left", b.h.mapped, len(b.h.bound))
		}
	})
	return b
}

// aligned says whether direct I/O would take a buffer.
func aligned(p []byte) bool { return uintptr(unsafe.Pointer(unsafe.SliceData(p)))%512 == 0 }

// hold makes every access to the disk announce itself and wait for a token of
// store.proceed.
func (b *bench) hold(t testing.TB) {
	b.store.arrived, b.store.proceed = make(chan string, 64), make(chan struct{}, 64)
	t.Cleanup(func() { close(b.store.proceed) })
}

// holdCopies does the same for grant copies.
func (b *bench) holdCopies(t testing.TB) {
	b.h.copying, b.h.proceed = make(chan struct{}, 64), make(chan struct{}, 64)
	t.Cleanup(func() { close(b.h.proceed) })
}

// recv receives from ch, in time.
func recv[T any](t testing.TB, ch <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(waitFor):
		t.Fatalf("no %s in %v", what, waitFor)
	}
	return v
}
