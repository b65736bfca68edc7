// SPDX-License-Identifier: Apache-2.0

package blkif

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/kemari-ft/kemari/xen/abi"
)

// Specification constants, blkif.h.
const (
	slotSize    = abi.BlkifSringEntrySize
	rspSize     = 16  // sizeof(blkif_response_t)
	sectorSize  = 512 // the unit of all sector numbers, whatever sector-size is
	sectorShift = 9
	segmentSize = 8 // sizeof(struct blkif_request_segment)

	maxDirectSegments = abi.BlkifMaxSegmentsPerRequest
)

// MaxIndirectSegments is the feature-max-indirect-segments offered to the front
// end, as in Linux's blkback. That many descriptors fit into one page.
const MaxIndirectSegments = 256

// raw is a request as copied from the ring, once.
type raw [slotSize]byte

func (r *raw) op() uint8        { return r[0] }
func (r *raw) id() uint64       { return binary.LittleEndian.Uint64(r[8:]) }
func (r *raw) sector() uint64   { return binary.LittleEndian.Uint64(r[16:]) }
func (r *raw) isIndirect() bool { return r.op() == abi.BlkifOpIndirect }

// transferOp is the operation asked for: that of the request, or the one an
// indirect request carries. The response has to name it: blkfront takes an
// indirect request's response for wrong if it names BLKIF_OP_INDIRECT.
func (r *raw) transferOp() uint8 {
	if r.isIndirect() {
		return r[1] // blkif_request_indirect.indirect_op
	}
	return r.op()
}

// segments is the number of data segments.
func (r *raw) segments() int {
	if r.isIndirect() {
		return int(binary.LittleEndian.Uint16(r[2:]))
	}
	return int(r[1])
}

// indirectRef is the grant of the page with the descriptors. MaxIndirectSegments
// of them fit into the first, so there is no second.
func (r *raw) indirectRef() abi.GrantRef {
	return abi.GrantRef(binary.LittleEndian.Uint32(r[28:]))
}

// direct is the descriptors of a request that carries them itself.
func (r *raw) direct() []byte { return r[24:slotSize] }

func (r *raw) discardFlag() uint8     { return r[1] }
func (r *raw) discardSectors() uint64 { return binary.LittleEndian.Uint64(r[24:]) }

// effect says whether a request can change anything outside the guest. All but
// reads are taken to.
func effect(req []byte) bool {
	switch req[0] {
	case abi.BlkifOpRead:
		return false
	case abi.BlkifOpIndirect:
		return req[1] != abi.BlkifOpRead
	}
	return true
}

// response fills a response. All its bytes are set: one left over from the
// back end's memory would leak to the guest, as in XSA-216.
func (r *raw) response(status int16) (rsp [rspSize]byte) {
	binary.LittleEndian.PutUint64(rsp[0:], r.id())
	rsp[8] = r.transferOp()
	binary.LittleEndian.PutUint16(rsp[10:], uint16(status))
	return rsp
}

// segment is a checked descriptor: where in which page, and how many bytes.
type segment struct {
	ref abi.GrantRef
	off uint16
	len uint16
}

var errBadRequest = errors.New("malformed request")

// parseSegments checks n descriptors in b and stores them in segs. It returns
// their length in bytes.
func parseSegments(b []byte, n int, segs []segment) (int, error) {
	total := 0
	for k := range n {
		d := b[k*segmentSize : (k+1)*segmentSize]
		first, last := d[4], d[5]
		if first > last || last >= abi.PageSize/sectorSize {
			return 0, fmt.Errorf("%w: segment %d covers sectors %d to %d of a page", errBadRequest, k, first, last)
		}
		segs[k] = segment{
			ref: abi.GrantRef(binary.LittleEndian.Uint32(d)),
			off: uint16(first) << sectorShift,
			len: uint16(last-first+1) << sectorShift,
		}
		total += int(segs[k].len)
	}
	return total, nil
}

// extent checks a range of 512-byte sectors against a disk of size bytes with
// the given logical sector size, and returns it in bytes.
func extent(sector, sectors uint64, size int64, logical int) (off, n int64, err error) {
	end := uint64(size) >> sectorShift
	if sector > end || sectors > end-sector {
		return 0, 0, fmt.Errorf("%w: sectors %d+%d are beyond the disk's %d", errBadRequest, sector, sectors, end)
	}
	off, n = int64(sector)<<sectorShift, int64(sectors)<<sectorShift
	if off%int64(logical) != 0 || n%int64(logical) != 0 {
		return 0, 0, fmt.Errorf("%w: sectors %d+%d are not aligned to the disk's sector of %d bytes", errBadRequest, sector, sectors, logical)
	}
	return off, n, nil
}
