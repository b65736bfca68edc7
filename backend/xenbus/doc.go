// SPDX-License-Identifier: Apache-2.0

// Package xenbus serves the block back ends of class vbd3 in xenstore: the
// hand-shake of xen/include/public/io/xenbus.h with libxl on one side and the
// guest's front end on the other.
//
// vbd3 is what libxl calls a disk with backendtype=tap: the front end is an
// ordinary vbd, and no kernel driver claims the back end. In the life of a
// device,
//
//	libxl       creates both ends' nodes, state=1
//	back end    writes its features, state=2          (within 10 s)
//	libxl       runs the hotplug script, which writes hotplug-status
//	front end   writes ring-ref and event-channel, state=3
//	back end    maps the rings, writes the disk's size, state=4
//	libxl       at the end writes online=0, state=5
//	front end   state=6, or its nodes disappear
//	back end    gives up the rings, state=6           (within 10 s)
//
// A device that may not be served (Config.Open fails) is moved to state 2 with
// hotplug-error and hotplug-status=error set, so that the hotplug script can
// tell the operator at once; it is never connected.
//
// Two more ways lead into the connected state, both with a front end that
// stays there and knows of nothing: a restarted daemon finds the nodes of its
// predecessor (state=4) and recovers; and the host that takes over a guest
// calls [Server.Attach], which creates the back end's nodes with state=4.
//
// What the guest writes is hostile: every key is read once and checked.
package xenbus
