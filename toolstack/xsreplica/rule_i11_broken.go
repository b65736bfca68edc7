// SPDX-License-Identifier: Apache-2.0

//go:build broken_i11

package xsreplica

// frontDirs breaks invariant I11 on purpose, so that its test can be seen to
// fail: the other host's console is taken over, and xl console looks for a
// terminal that is not here.
var frontDirs = []string{"attr", "console", "data", "device", "drivers", "feature"}
