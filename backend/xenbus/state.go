// SPDX-License-Identifier: Apache-2.0

package xenbus

import "github.com/kemari-ft/kemari/xen/abi"

// view is what the state machine decides on.
type view struct {
	backend   abi.XenbusState // Unknown if there is no such node
	frontend  abi.XenbusState
	online    bool
	alive     bool // the domain is not dying
	refused   bool // may not be served, until a front end begins anew
	connected bool // rings are mapped
}

// action is what there is to do about a device.
type action uint8

const (
	nothing  action = iota
	offer           // open the disk, write features, state=2
	connect         // take up the front end's rings, state=4
	recover_        // take up rings that a process before this one served
	letGo           // give up the rings; the nodes are somebody else's business
	closing         // follow the front end: state=5
	closed          // give up the rings, state=6
	forget          // the nodes are gone: give up everything
)

// decide is the state machine. Linux's blkback (frontend_changed in
// drivers/block/xen-blkback/xenbus.c) is the model; unlike there, only what
// xenstore says now counts, not the order in which it came to be.
func decide(v view) action {
	switch {
	case v.backend == abi.XenbusUnknown:
		return forget
	case !v.alive && v.connected:
		return letGo
	}
	gone := v.frontend == abi.XenbusUnknown || v.frontend == abi.XenbusClosed
	waiting := v.frontend == abi.XenbusInitialised || v.frontend == abi.XenbusConnected
	switch v.backend {
	case abi.XenbusInitialising:
		return offer
	case abi.XenbusInitWait:
		switch {
		case v.refused || !v.alive:
			return nothing
		case waiting:
			return connect
		case v.frontend == abi.XenbusClosing:
			return closing
		case v.frontend == abi.XenbusClosed:
			return closed
		}
	case abi.XenbusConnected:
		switch {
		case gone:
			return closed
		case v.frontend == abi.XenbusClosing:
			return closing
		case waiting && !v.connected && v.alive && !v.refused:
			return recover_
		}
	case abi.XenbusClosing:
		// The front end may still be at work, unless nothing connects us.
		if gone || !v.connected {
			return closed
		}
	case abi.XenbusClosed:
		switch {
		case v.connected:
			return closed
		case v.online && v.frontend == abi.XenbusInitialising:
			return offer // it starts anew, after kexec or a boot loader
		}
	}
	return nothing
}
