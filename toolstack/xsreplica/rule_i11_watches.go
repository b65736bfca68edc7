// SPDX-License-Identifier: Apache-2.0

//go:build !broken_i11 && !broken_i11_watches

package xsreplica

import "github.com/kemari-ft/kemari/xen/abi"

// ask puts a request for each watch into what is said: the guest's own kernel
// waits for them, and without them does not hear of xl shutdown (invariant
// I11).
func (d *dialogue) ask(watches []Watch) error {
	for i, w := range watches {
		if err := checkWatch(w); err != nil {
			return err
		}
		d.out = appendMessage(d.out, abi.XSWatch, uint32(i+1), w.Path+"\x00"+w.Token+"\x00")
	}
	d.watches = watches
	return nil
}
