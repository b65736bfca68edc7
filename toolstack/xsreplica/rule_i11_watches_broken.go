// SPDX-License-Identifier: Apache-2.0

// With broken_i11_watches nothing else is broken: in the lab the absence of the
// guest's name would be noticed first.

//go:build broken_i11 || broken_i11_watches

package xsreplica

// ask breaks invariant I11 on purpose, so that its test can be seen to fail:
// the guest goes on without its watches.
func (d *dialogue) ask([]Watch) error { return nil }
