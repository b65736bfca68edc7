// SPDX-License-Identifier: Apache-2.0

//go:build broken_i15

package store

import "io/fs"

// promises and refuseHostCache break invariant I15 on purpose, so that its test
// can be seen to fail: storage that no other host can read is taken.
func promises(int64, Options) error { return nil }

func refuseHostCache(fs.FS, string) error { return nil }
