// SPDX-License-Identifier: Apache-2.0

package primary

import (
	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/xen/abi"
)

// Disks are the back ends of one guest's disks. Freeze and Thaw alternate;
// HasOutput, Rearm and Capture come between them.
type Disks interface {
	// Freeze returns when nothing in dom0 writes to the guest's memory.
	Freeze()
	Thaw()
	// Fix refuses disks that are attached from now on: the secondary would
	// have to serve them, too, and does not know of them. It returns, by the
	// guest's name for them, in what those are stored that there are.
	Fix() (map[string]string, error)
	// Gate closes the gates. Ungate opens them for good, and undoes Fix.
	Gate()
	Ungate()
	HasOutput() bool
	Rearm()
	// Capture returns the positions of all rings, valid until the next call,
	// and the grants of their pages.
	Capture() ([]stream.Ring, []abi.GrantRef)
	// Commit lets pass what the last Capture saw.
	Commit() error
	// Recover takes up the disks that a daemon before this one served. It may be
	// tried again.
	Recover() error
	// Close returns when no request is in work any more, and none will be.
	Close() error
}

// noDisks are the disks of a guest that has none.
type noDisks struct{}

func (noDisks) Freeze()                                  {}
func (noDisks) Thaw()                                    {}
func (noDisks) Fix() (map[string]string, error)          { return nil, nil }
func (noDisks) Gate()                                    {}
func (noDisks) Ungate()                                  {}
func (noDisks) HasOutput() bool                          { return true }
func (noDisks) Rearm()                                   {}
func (noDisks) Capture() ([]stream.Ring, []abi.GrantRef) { return nil, nil }
func (noDisks) Commit() error                            { return nil }
func (noDisks) Recover() error                           { return nil }
func (noDisks) Close() error                             { return nil }
