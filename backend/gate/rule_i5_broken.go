// SPDX-License-Identifier: Apache-2.0

//go:build broken_i5

package gate

// eventAfter breaks invariant I5 on purpose, so that its test can be seen to
// fail: the first push after the pause goes unnoticed.
func eventAfter(reqProd uint32) uint32 { return reqProd + 2 }
