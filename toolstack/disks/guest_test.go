// SPDX-License-Identifier: Apache-2.0

package disks

import (
	"testing"
	"time"

	"github.com/kemari-ft/kemari/backend/blkif"
	"github.com/kemari-ft/kemari/backend/store"
)

// someStore is a disk that is not used.
type someStore struct{ store.Store }

func (someStore) Size() int64     { return 1 << 20 }
func (someStore) SectorSize() int { return 512 }
func (someStore) Close() error    { return nil }

// TestLeftFrozen: a session that breaks off leaves the disks frozen if its epoch is not
// acknowledged, and the next one freezes them, too.
func TestLeftFrozen(t *testing.T) {
	dev, err := blkif.NewDevice(blkif.Config{Store: someStore{}})
	if err != nil {
		t.Fatal(err)
	}
	g := &Guest{}
	if err := g.add(&device{Device: dev, guest: g}); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 2 {
			g.Freeze()
			g.Freeze()
			g.Thaw()
			g.Thaw()
		}
	}()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatal("the second Freeze waits for a Thaw that nobody will call")
	}
}
