// SPDX-License-Identifier: Apache-2.0

//go:build !broken_i15

package blkif

// store writes p. It returns, and the guest is answered, when the other host
// can read it (invariant I15).
func (w *worker) store(p []byte, off int64) error {
	_, err := w.dev.cfg.Store.WriteAt(p, off)
	return err
}
