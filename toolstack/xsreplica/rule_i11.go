// SPDX-License-Identifier: Apache-2.0

//go:build !broken_i11

package xsreplica

// frontDirs are the directories under /local/domain/D that belong to the guest
// and its devices, with all that is below them.  All else there is local to
// the host, and what xl on this host goes by (invariant I11): console/tty,
// store/port, vm, name, control/shutdown and the like.
var frontDirs = []string{"attr", "data", "device", "drivers", "feature"}
