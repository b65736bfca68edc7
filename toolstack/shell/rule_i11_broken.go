// SPDX-License-Identifier: Apache-2.0

//go:build broken_i11

package shell

import (
	"context"

	"github.com/kemari-ft/kemari/toolstack/shell/xlstream"
	"github.com/kemari-ft/kemari/xen/abi"
)

// giveName breaks invariant I11 on purpose, so that its test can be seen to
// fail: the guest runs under its shell's name.
func (t Tools) giveName(context.Context, abi.DomID, *xlstream.Config) error { return nil }
