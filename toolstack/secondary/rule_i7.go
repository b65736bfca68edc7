// SPDX-License-Identifier: Apache-2.0

//go:build !broken_i7

package secondary

import (
	"fmt"

	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/toolstack/xsreplica"
	"github.com/kemari-ft/kemari/xen/kemariop"
)

// judge looks into what the stream carries without understanding it, and which
// is needed at activation: not to find out then, with the primary gone, after it was
// acknowledged (invariant I7).
func (r *Receiver) judge(e *stream.Epoch) error {
	if _, err := kemariop.DecodeState(e.State); err != nil {
		return fmt.Errorf("epoch %d: %w", e.Number, err)
	}
	if e.Xenstore == nil || r.guest == nil {
		return nil
	}
	if _, err := xsreplica.Decode(e.Xenstore, r.guest.DomID); err != nil {
		return fmt.Errorf("epoch %d: %w", e.Number, err)
	}
	return nil
}
