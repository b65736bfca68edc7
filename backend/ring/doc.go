// SPDX-License-Identifier: Apache-2.0

// Package ring is the back-end half of Xen's shared I/O rings, after the
// macros of xen/include/public/io/ring.h, with one difference: responses are
// published strictly in request order, response i in slot i.
//
// The order is what makes a ring page a complete description of the work in
// it. ring.h lets a back end put any response into the next free response
// slot, which overwrites the descriptor of a request that is still being
// worked on; a copy of such a page can not be taken up by another back end.
// Here slots [rsp_prod, req_prod) always hold intact requests, so a back end
// on another host attaches at rsp_prod and starts them again.
//
// The package does no I/O and starts no goroutine. It works on any byte slice:
// a grant mapping, or plain memory in tests. The other side is not trusted:
// indices are checked before they are used, and a request is copied out once.
package ring
