// SPDX-License-Identifier: Apache-2.0

package primary

import (
	"bytes"
	"sync/atomic"

	"github.com/kemari-ft/kemari/toolstack/xsreplica"
	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/xenstore"
)

// storeView follows what xenstore holds of a guest.
type storeView struct {
	client  *xenstore.Client
	dom     abi.DomID
	watches []*xenstore.Watch
	changed atomic.Bool // since the last snapshot

	image  [abi.PageSize]byte // the store page as looked at last
	quiet  [indices]byte      // its indices when it was quiet last
	looked bool
	nodes  []byte // as sent last
}

// The indices of struct xenstore_domain_interface lie behind its two rings of
// 1024 octets; see xen/include/public/io/xs_wire.h.
const firstIndex, indices = 2048, 16

// followStore begins to follow what xenstore holds of the guest.
func (s *Session) followStore() (err error) {
	if s.store == nil {
		s.store, err = newStoreView(s.cfg.Host.Store, s.cfg.Dom)
	}
	return err
}

func newStoreView(c *xenstore.Client, dom abi.DomID) (*storeView, error) {
	v := &storeView{client: c, dom: dom}
	v.changed.Store(true)
	for _, root := range xsreplica.Roots(dom) {
		w, err := c.Watch(root)
		if err != nil {
			v.close()
			return nil, err
		}
		v.watches = append(v.watches, w)
		go func() {
			for range w.C {
				v.changed.Store(true)
			}
		}()
	}
	return v, nil
}

func (v *storeView) close() {
	for _, w := range v.watches {
		_ = w.Close() // the connection may have ended
	}
	v.watches = nil
}

// look judges the store page of the frozen guest, by a copy, for xenstored may
// write to it at any time.
func (v *storeView) look(page []byte) (xsreplica.Busy, error) {
	copy(v.image[:], page)
	now := v.image[firstIndex : firstIndex+indices]
	used := !v.looked || !bytes.Equal(now, v.quiet[:])
	busy, err := xsreplica.Judge(v.image[:], page, used, v.dom, v.client.Control)
	if err != nil || busy != "" {
		return busy, err
	}
	v.looked = true
	copy(v.quiet[:], now)
	if used {
		v.changed.Store(true) // the guest may have written nodes or set watches
	}
	return "", nil
}

// lookAgain makes the image of the store page of a guest that a daemon before
// this one has frozen and harvested. It was quiet then, or it would not have been
// harvested, and the guest has not run since: what xenstored has written
// meanwhile are events of watches, which came after the epoch. To let the guest
// read them is not possible (see XEN_KEMARI_OP_release): without its output no
// epoch can be closed before that of this harvest is committed, and with it what
// is not acknowledged would be seen. Nor is it necessary. They are left out of
// the image, and stay in the page; at an activation all watches fire anew.
func (v *storeView) lookAgain(page []byte) xsreplica.Busy {
	copy(v.image[:], page)
	xsreplica.DropUnread(v.image[:])
	return xsreplica.RingBusy(v.image[:])
}

// state returns what has to go into the epoch, nil if nothing changed.
func (v *storeView) state(all bool) ([]byte, error) {
	if !v.changed.Swap(false) && v.nodes != nil {
		if all {
			return v.nodes, nil
		}
		return nil, nil
	}
	var st xsreplica.State
	err := v.client.Transaction(func(tx *xenstore.Tx) (err error) {
		st.Nodes, err = xsreplica.Snapshot(tx, v.dom)
		return err
	})
	if err == nil {
		var reply string
		if reply, err = v.client.Control("watches"); err == nil {
			st.Watches, err = xsreplica.ParseWatches(reply, v.dom)
		}
	}
	var b []byte
	if err == nil {
		b, err = st.Encode(v.dom)
	}
	if err != nil {
		v.changed.Store(true)
		return nil, err
	}
	if !all && bytes.Equal(b, v.nodes) {
		return nil, nil
	}
	v.nodes = b
	return b, nil
}
