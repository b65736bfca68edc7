// SPDX-License-Identifier: Apache-2.0

//go:build broken_i15

package blkif

import "bytes"

// store breaks invariant I15 on purpose, so that its test can be seen to fail:
// the guest is answered while its data is still on the way.
func (w *worker) store(p []byte, off int64) error {
	p = bytes.Clone(p)
	go func() {
		if _, err := w.dev.cfg.Store.WriteAt(p, off); err != nil {
			w.dev.report(err)
		}
	}()
	return nil
}
