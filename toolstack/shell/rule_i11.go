// SPDX-License-Identifier: Apache-2.0

//go:build !broken_i11

package shell

import (
	"context"

	"github.com/kemari-ft/kemari/toolstack/shell/xlstream"
	"github.com/kemari-ft/kemari/xen/abi"
)

// giveName makes the shell the one that xl means by the guest's name (invariant
// I11).
func (t Tools) giveName(ctx context.Context, dom abi.DomID, cfg *xlstream.Config) error {
	return t.Rename(ctx, dom, cfg.Name())
}
