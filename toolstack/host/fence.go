// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// fenceTime bounds one run of the fence command: a management controller that
// does not answer in this time does not answer.
const fenceTime = 2 * time.Minute

// ErrNoFence: without a fence command only the operator can say that the peer
// is off.
var ErrNoFence = errors.New("no fence_command in kemari.conf; " + byHand)

const byHand = "when the peer is off for certain, say so by kemari failover --peer-is-off (or, on the host that runs the guest, kemari unprotect --peer-is-off)"

// Fence powers the peer off. It returns nil only if that is certain.
func (h *Host) Fence(ctx context.Context, why string) error {
	args := h.Config.Fence
	if len(args) == 0 {
		return ErrNoFence
	}
	h.Log.Warn("fencing the peer", "why", why, "command", strings.Join(args, " "))
	ctx, cancel := context.WithTimeout(ctx, fenceTime)
	defer cancel()
	start := time.Now()
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		err = fmt.Errorf("fence command %s: %w: %s; %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)), byHand)
		h.Log.Error("the peer is not fenced", "error", err)
		return err
	}
	h.Log.Warn("the peer is fenced", "took", time.Since(start))
	return nil
}
