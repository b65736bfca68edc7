// SPDX-License-Identifier: Apache-2.0

//go:build !broken_i5

package gate

// eventAfter is the req_event that makes the next push after reqProd notify
// (invariant I5): RING_PUSH_REQUESTS_AND_CHECK_NOTIFY compares it with the
// index after the request pushed.
func eventAfter(reqProd uint32) uint32 { return reqProd + 1 }
