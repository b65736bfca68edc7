// SPDX-License-Identifier: Apache-2.0

package pair

import (
	"encoding/binary"
	"fmt"
)

// Events of Xen's trace buffers, xen/include/public/trace.h.
const (
	TraceNestedFault = 0x82021 // TRC_HVM_NPF
	TraceHVMHandler  = 0x82000 // TRC_HVM_HANDLER: the class of it
	traceLost        = 0x1f001 // TRC_LOST_RECORDS
)

// CountTrace counts an event in what xentrace wrote: struct t_rec, one after the
// other. It fails where records were lost.
func CountTrace(b []byte, event uint32) (n int, err error) {
	for len(b) > 0 {
		if len(b) < 4 {
			return n, fmt.Errorf("trace: %d octets left over", len(b))
		}
		h := binary.LittleEndian.Uint32(b)
		size := 4 + 4*int(h>>28&7) // extra_u32
		if h>>31 != 0 {            // cycles_included
			size += 8
		}
		if size > len(b) {
			return n, fmt.Errorf("trace: a record of %d octets has %d", size, len(b))
		}
		switch h & (1<<28 - 1) {
		case event:
			n++
		case traceLost:
			return n, fmt.Errorf("trace: records were lost")
		}
		b = b[size:]
	}
	return n, nil
}
