// SPDX-License-Identifier: Apache-2.0

package xsreplica

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"github.com/kemari-ft/kemari/xen/abi"
)

// newPage is aligned as a mapped page is.
func newPage() []byte {
	words := make([]uint64, abi.PageSize/8)
	return unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), abi.PageSize)
}

// daemon is xenstored's end of a store page.
type daemon struct {
	r       ring
	in, out []byte
	watches []Watch
	answer  func(m message) []byte // instead of the ordinary answer
}

// indices reads a pair at once.  The second load of prod only tells the race
// detector, which takes it for another variable than the pair.
func (d *daemon) indices(off int) (cons, prod uint32, ok bool) {
	pair := atomic.LoadUint64(d.r.pair(off))
	cons, prod = uint32(pair), uint32(pair>>32)
	return cons, prod, atomic.LoadUint32(d.r.index(off+4)) == prod
}

// turn does what xenstored does when it is woken: read at most chunk bytes,
// answer what is whole, write at most chunk bytes.
func (d *daemon) turn(chunk uint32) {
	if atomic.LoadUint32(d.r.index(offConnection)) != connected {
		d.reset()
		return
	}
	cons, prod, ok := d.indices(offReqCons)
	if !ok {
		return
	}
	if prod-cons > abi.XenstoreRingSize {
		panic("xenstored sees indices that are far apart")
	}
	if n := min(prod-cons, chunk); n > 0 {
		for range n {
			d.in = append(d.in, d.r.page[cons%abi.XenstoreRingSize])
			cons++
		}
		atomic.StoreUint32(d.r.index(offReqCons), cons)
	}
	for {
		m, rest, ok, _ := nextMessage(d.in)
		if !ok {
			break
		}
		d.in = rest
		if d.answer != nil {
			if b := d.answer(m); b != nil {
				d.out = append(d.out, b...)
				continue
			}
		}
		switch m.typ {
		case abi.XSWatch:
			path, token, _ := strings.Cut(strings.TrimSuffix(m.payload, "\x00"), "\x00")
			d.watches = append(d.watches, Watch{path, token})
			d.out = appendMessage(d.out, abi.XSWatch, m.reqID, "OK\x00")
			d.out = appendMessage(d.out, abi.XSWatchEvent, 0, m.payload)
		case abi.XSGetDomainPath:
			d.out = appendMessage(d.out, m.typ, m.reqID, "/local/domain/"+m.payload)
		default:
			d.out = appendMessage(d.out, abi.XSError, m.reqID, "ENOSYS\x00")
		}
	}
	used, prod, ok := d.indices(offRspCons)
	if !ok {
		return
	}
	if n := min(abi.XenstoreRingSize-(prod-used), chunk, uint32(len(d.out))); n > 0 {
		for range n {
			d.r.page[offRsp+prod%abi.XenstoreRingSize] = d.out[0]
			d.out = d.out[1:]
			prod++
		}
		atomic.StoreUint32(d.r.index(offRspProd), prod)
	}
}

// reset is ml_interface_close(), and then what Xb.reconnect does.
func (d *daemon) reset() {
	for _, off := range []int{offReqCons, offReqProd, offRspCons, offRspProd} {
		atomic.StoreUint32(d.r.index(off), 0)
	}
	for i := range d.r.page[:offReqCons] {
		d.r.page[i] = 0xff
	}
	atomic.StoreUint32(d.r.index(offConnection), connected)
	d.in, d.out = nil, nil
}

// written fires the watches of a node.
func (d *daemon) written(path string) {
	for _, w := range d.watches {
		if w.Path == path {
			d.out = appendMessage(d.out, abi.XSWatchEvent, 0, w.Path+"\x00"+w.Token+"\x00")
		}
	}
}

// quietImage is the page of a guest that has talked for a while.
func quietImage() []byte {
	image := make([]byte, abi.PageSize)
	for i := range image[:offReqCons] {
		image[i] = byte('a' + i%26)
	}
	le := binary.LittleEndian
	le.PutUint32(image[offReqCons:], 123456)
	le.PutUint32(image[offReqProd:], 123456)
	le.PutUint32(image[offRspCons:], 0xfffffff0)
	le.PutUint32(image[offRspProd:], 0xfffffff0)
	le.PutUint32(image[offRspProd+4:], 1) // server_features
	image[abi.PageSize-1] = 0x5a
	return image
}

func manyWatches(n int) []Watch {
	var ws []Watch
	for i := range n {
		ws = append(ws, Watch{fmt.Sprintf("/local/domain/0/backend/vbd3/4242/%d/state", i), fmt.Sprintf("FFFF8880%08X", i)})
	}
	return append(ws, Watch{"control/shutdown", "FFFFFFFF82DDAB00"}, Watch{"@releaseDomain", ""})
}

// TestReplay: with rings far smaller than what is said, whatever the daemon's
// pace, all watches are there and the page is the guest's.
func TestReplay(t *testing.T) {
	for _, chunk := range []uint32{1, 7, 16, 100, 1024} {
		for _, start := range []uint32{0, 1000, 0xffffff80} {
			page := newPage()
			r, err := newRing(page)
			if err != nil {
				t.Fatal(err)
			}
			for _, off := range []int{offReqCons, offReqProd, offRspCons, offRspProd} {
				*r.index(off) = start
			}
			d := &daemon{r: r}
			watches, image := manyWatches(60), quietImage()
			kick := func() error { d.turn(chunk); return nil }
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			err = Replay(ctx, dom, page, image, watches, kick)
			cancel()
			if err != nil {
				t.Fatalf("chunk %d: %v", chunk, err)
			}
			if diff := cmp.Diff(watches, d.watches); diff != "" {
				t.Errorf("chunk %d (-want +got):\n%s", chunk, diff)
			}
			if !bytes.Equal(page, image) {
				t.Errorf("chunk %d: the page is not the guest's", chunk)
			}
		}
	}
}

// I11: xl shutdown and xl reboot reach the guest that was taken over as
// they did before: the watches of its own kernel fire, with its own tokens, and
// each but once.
func TestI11WatchesFireAgain(t *testing.T) {
	page, image := newPage(), quietImage()
	r, err := newRing(page)
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{r: r}
	watches := []Watch{
		{"control/shutdown", "FFFFFFFF82DDAB00"},
		{"control/sysrq", "FFFFFFFF82DDAB40"},
		{"/local/domain/0/backend/vbd3/4242/51712/state", "FFFF888004E43020"},
	}
	kick := func() error { d.turn(abi.XenstoreRingSize); return nil }
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := Replay(ctx, dom, page, image, watches, kick); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(page, image) {
		t.Error("the guest does not find its store page as it left it")
	}
	// The guest runs, and somebody writes to the nodes.
	for _, w := range watches {
		d.written(w.Path)
		d.turn(abi.XenstoreRingSize)
		in, err := r.read(nil)
		if err != nil {
			t.Fatal(err)
		}
		m, rest, ok, err := nextMessage(in)
		if !ok || err != nil {
			t.Errorf("%s: its watch did not fire (%v)", w.Path, err)
			continue
		}
		if m.typ != abi.XSWatchEvent || m.payload != w.Path+"\x00"+w.Token+"\x00" || len(rest) != 0 {
			t.Errorf("%s: the guest gets %q (type %d) and %d bytes more", w.Path, m.payload, m.typ, len(rest))
		}
	}
}

// TestReplayConcurrent: xenstored looks at the ring whenever it likes, also
// while the image is put in its place, and must never see a request there.
func TestReplayConcurrent(t *testing.T) {
	page := newPage()
	r, err := newRing(page)
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{r: r}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				d.turn(64)
				runtime.Gosched()
			}
		}
	}()
	kick := func() error { return nil }
	image := quietImage()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	err = Replay(ctx, dom, page, image, manyWatches(40), kick)
	time.Sleep(time.Millisecond) // some more looks at the guest's own image
	close(stop)
	<-stopped
	if err != nil {
		t.Fatal(err)
	}
	if len(d.watches) != 42 || !bytes.Equal(page, image) {
		t.Errorf("%d watches; page is the guest's: %t", len(d.watches), bytes.Equal(page, image))
	}
}

func TestReplayFails(t *testing.T) {
	run := func(watches []Watch, image []byte, answer func(message) []byte) error {
		page := newPage()
		r, err := newRing(page)
		if err != nil {
			t.Fatal(err)
		}
		d := &daemon{r: r, answer: answer}
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		return Replay(ctx, dom, page, image, watches, func() error { d.turn(512); return nil })
	}
	reply := func(typ, id uint32, payload string) func(message) []byte {
		return func(m message) []byte {
			if m.reqID != 2 {
				return nil
			}
			return appendMessage(nil, typ, id, payload)
		}
	}
	busy := quietImage()
	busy[offReqProd]++
	ws := manyWatches(1)
	for _, tc := range []struct {
		name   string
		image  []byte
		answer func(message) []byte
		want   string
	}{
		{"image not quiet", busy, nil, "not quiet"},
		{"quota", quietImage(), reply(abi.XSError, 2, "E2BIG\x00"), "watch control/shutdown: xenstored answers \"E2BIG\""},
		{"wrong id", quietImage(), reply(abi.XSWatch, 7, "OK\x00"), "answers request 7"},
		{"no event", quietImage(), reply(abi.XSWatch, 2, "OK\x00"), "first event did not come"},
		{"endless message", quietImage(), func(message) []byte {
			return []byte{4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0}
		}, "65536 bytes"},
		{"silence", quietImage(), func(message) []byte { return []byte{} }, "does not answer (0 of 4"},
		{"event after the end", quietImage(), func(m message) []byte {
			if m.typ != abi.XSGetDomainPath {
				return nil
			}
			b := appendMessage(nil, m.typ, m.reqID, "x\x00")
			return appendMessage(b, abi.XSWatchEvent, 0, "device\x00FF\x00")
		}, "written to a watched node"},
	} {
		err := run(ws, tc.image, tc.answer)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error does not mention %q: %v", tc.name, tc.want, err)
		}
	}
	if err := Replay(context.Background(), dom, make([]byte, 100), quietImage(), nil, nil); err == nil {
		t.Error("short page accepted")
	}
	broken := errors.New("broken")
	if err := Replay(context.Background(), dom, newPage(), quietImage(), ws, func() error { return broken }); !errors.Is(err, broken) {
		t.Errorf("kick: %v", err)
	}
	page := newPage()
	binary.LittleEndian.PutUint32(page[offRspProd:], 5000)
	if err := Replay(context.Background(), dom, page, quietImage(), ws, func() error { return nil }); !errors.Is(err, errRing) {
		t.Errorf("bad indices: %v", err)
	}
}

// asks has the guest make a request over its page, and says whether it gets the
// answer, and nothing else.
func asks(t *testing.T, d *daemon) error {
	t.Helper()
	if _, err := d.r.write(appendMessage(nil, abi.XSGetDomainPath, 77, "4242\x00")); err != nil {
		t.Fatal(err)
	}
	var in []byte
	for range 100 {
		d.turn(abi.XenstoreRingSize)
		var err error
		if in, err = d.r.read(in); err != nil {
			t.Fatal(err)
		}
	}
	m, rest, ok, err := nextMessage(in)
	if !ok || err != nil || m.typ != abi.XSGetDomainPath || m.reqID != 77 || len(rest) != 0 {
		return fmt.Errorf("%q", in)
	}
	return nil
}

// TestReset: wherever a replay breaks off, the guest's own conversation is not
// mixed with it.
func TestReset(t *testing.T) {
	const kicks = 40 // of a whole replay
	for fails := range kicks {
		for _, late := range []bool{false, true} {
			page, image := newPage(), quietImage()
			r, err := newRing(page)
			if err != nil {
				t.Fatal(err)
			}
			d := &daemon{r: r}
			turns := fails // until xenstored falls silent
			kick := func() error {
				if turns > 0 {
					d.turn(100)
					turns--
				}
				return nil
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
			err = Replay(ctx, dom, page, image, manyWatches(60), kick)
			cancel()
			if err == nil {
				t.Fatalf("the replay ends with %d kicks", fails)
			}
			ctx, cancel = context.WithTimeout(context.Background(), 20*time.Second)
			if turns = kicks; late {
				turns = 0
				cancel()
			}
			err = Reset(ctx, dom, page, image, kick)
			cancel()
			if (err != nil) != late {
				t.Errorf("after %d kicks: %v", fails, err)
			}
			if late { // xenstored comes back, to a guest that has gone on
				if RingBusy(page) == "" {
					t.Error("the guest could be protected again")
				}
				if err := asks(t, d); err == nil {
					t.Error("xenstored answers before it has begun anew")
				}
			} else if !bytes.Equal(page, image) {
				t.Error("the guest does not find its store page as it left it")
			}
			if err := asks(t, d); err != nil {
				t.Errorf("after %d kicks: the guest asks, and gets %v", fails, err)
			}
			if busy := RingBusy(bytes.Clone(page)); busy != "" {
				t.Errorf("after %d kicks: %s", fails, busy)
			}
		}
	}
}

// FuzzDialogue: whatever comes back, Replay ends with an error or all watches.
func FuzzDialogue(f *testing.F) {
	good := appendMessage(nil, abi.XSWatch, 1, "OK\x00")
	good = appendMessage(good, abi.XSWatchEvent, 0, "a\x00b\x00")
	good = appendMessage(good, abi.XSGetDomainPath, 2, "/local/domain/4242\x00")
	f.Add(good)
	f.Fuzz(func(t *testing.T, in []byte) {
		w := Watch{"a", "b"}
		d, err := newDialogue(dom, []Watch{w})
		if err != nil {
			t.Fatal(err)
		}
		d.in = in
		if err := d.parse(); err == nil && d.done && (!d.events[w] || d.answered != 2 || len(d.in) != 0) {
			t.Fatal("ended too early")
		}
	})
}

// TestPut: all of the image is there, the word about the connection with it.
func TestPut(t *testing.T) {
	words := make([]uint64, abi.PageSize/8)
	page := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), abi.PageSize)
	image := make([]byte, abi.PageSize)
	for i := range image {
		image[i] = byte(i*7 + i>>8)
	}
	if err := Put(page, image); err != nil || !bytes.Equal(page, image) {
		t.Errorf("the page is not the image; %v", err)
	}
	if Put(page, image[:100]) == nil || Put(page[:100], image) == nil {
		t.Error("a part of a page is taken")
	}
}
