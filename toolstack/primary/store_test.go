// SPDX-License-Identifier: Apache-2.0

package primary

import (
	"encoding/binary"
	"testing"

	"github.com/google/uuid"
	"github.com/hashicorp/go-hclog"
	"github.com/kemari-ft/kemari/toolstack/host"
	"github.com/kemari-ft/kemari/toolstack/lease"
	"github.com/kemari-ft/kemari/toolstack/replica"
	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/toolstack/xsreplica"
	"github.com/kemari-ft/kemari/xen/abi"
)

// TestFrozenByAnEarlierDaemon: of a guest that lay frozen while no daemon ran,
// xenstored or not, a quiet image of its store page goes out; and if that cannot
// be, none.
func TestFrozenByAnEarlierDaemon(t *testing.T) {
	const reqCons, reqProd, rspCons, rspProd = firstIndex, firstIndex + 4, firstIndex + 8, firstIndex + 12
	le := binary.LittleEndian
	for _, tc := range []struct {
		what  string
		store func(page []byte)
		then  replica.Event
	}{
		{"quiet", func([]byte) {}, replica.Harvested{}},
		{"a watch has fired", func(page []byte) { le.PutUint32(page[rspProd:], 700+40) }, replica.Harvested{}},
		{"a watch has fired, and its event is not written whole", func(page []byte) { le.PutUint32(page[rspProd:], 700+1024) }, replica.Harvested{}},
		{"a request is not read", func(page []byte) { le.PutUint32(page[reqProd:], 300+16) }, replica.Resync{}},
		{"a request is not read, and a watch has fired", func(page []byte) {
			le.PutUint32(page[reqProd:], 300+16)
			le.PutUint32(page[rspProd:], 700+40)
		}, replica.Resync{}},
	} {
		t.Run(tc.what, func(t *testing.T) {
			g := newFakeGuest(t)
			page := g.page(storeGFN)
			clear(page)
			for at, v := range map[int]uint32{reqCons: 300, reqProd: 300, rspCons: 700, rspProd: 700} {
				le.PutUint32(page[at:], v)
			}
			tc.store(page)
			g.capture.SetStore(nil)
			s := New(Config{Host: &host.Host{Log: hclog.NewNullLogger()}, Guest: uuid.New(),
				Record: lease.Record{Role: lease.Primary, Generation: 1, Phase: lease.Protecting}, Frozen: true})
			defer s.measure.counters.close()
			s.frozen, s.capture = true, g.capture
			s.store = &storeView{dom: 7, nodes: []byte{1}}
			g.must(s.harvestNow())
			if len(s.local) != 1 || s.local[0] != tc.then {
				t.Fatalf("then %#v, expected was %T", s.local, tc.then)
			}
			if !s.frozen || !s.stopped {
				t.Error("the guest was let run")
			}
			if _, sent := tc.then.(replica.Harvested); !sent {
				if g.capture.store != nil {
					t.Error("there is an image to send")
				}
				return
			}
			g.capture.SetRings([]abi.GrantRef{1, 2})
			_, err := g.capture.Epoch(g.writer, 1, 1, g.harvest(), true, nil, s.nodes)
			g.must(err)
			g.apply()
			image := g.copied(storeGFN)
			if busy := xsreplica.RingBusy(image); busy != "" {
				t.Errorf("the secondary's image is not quiet: %s", busy)
			}
			if le.Uint32(image[rspProd:]) != 700 || le.Uint32(image[reqProd:]) != 300 {
				t.Error("the guest's own indices have changed")
			}
		})
	}
}

// TestLookAgainLeavesThePage: the guest reads later what was left out.
func TestLookAgainLeavesThePage(t *testing.T) {
	g := newFakeGuest(t)
	page := g.page(storeGFN)
	binary.LittleEndian.PutUint32(page[firstIndex+12:], 40)
	v := &storeView{}
	if busy := v.lookAgain(g.capture.Fixed(stream.AlwaysStore)); busy != "" {
		t.Error(busy)
	}
	if binary.LittleEndian.Uint32(page[firstIndex+12:]) != 40 {
		t.Error("an event of a watch was taken from the guest")
	}
}
