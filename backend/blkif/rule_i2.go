// SPDX-License-Identifier: Apache-2.0

//go:build !broken_i2

package blkif

// taken copies request i, which a process that died had in work, into dst. The
// journal has it; its slot may hold half of its response (invariant I2).
func (q *queue) taken(i uint32, dst []byte) error { return q.journal.Request(i, dst) }
