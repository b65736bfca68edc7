// SPDX-License-Identifier: Apache-2.0

package xlstream

import (
	"encoding/binary"
	"io"

	"github.com/kemari-ft/kemari/xen/abi"
)

// Constants of the xl save file.  See tools/xl/xl.h.
const (
	xlMagic = "Xen saved domain, xl format\n \x00 \r"

	xlByteOrder        = 0x01020304 // SAVEFILE_BYTEORDER_VALUE
	xlMandatoryJSON    = 1 << 0     // XL_MANDATORY_FLAG_JSON
	xlMandatoryStream2 = 1 << 1     // XL_MANDATORY_FLAG_STREAMv2
)

// Constants of the libxl stream.  See tools/libs/light/libxl_sr_stream_format.h.
const (
	libxlIdent   = 0x4c6962786c466d74 // RESTORE_STREAM_IDENT, "LibxlFmt"
	libxlVersion = 2                  // RESTORE_STREAM_VERSION

	libxlRecEnd          = 0
	libxlRecLibxcContext = 1
)

// Constants of the libxc stream.  See tools/libs/guest/xg_sr_stream_format.h.
const (
	libxcMarker  = 0xffffffffffffffff // IHDR_MARKER
	libxcID      = 0x58454e46         // IHDR_ID, "XENF"
	libxcVersion = 3

	dhdrTypeHVM = 2 // DHDR_TYPE_X86_HVM
	pageShift   = 12

	recEnd           = 0x00
	recPageData      = 0x01
	recTSCInfo       = 0x08
	recHVMContext    = 0x09
	recHVMParams     = 0x0a
	recStaticDataEnd = 0x10

	// pageXAlloc is XEN_DOMCTL_PFINFO_XALLOC in the place that PAGE_DATA
	// gives to the type of a page: populate it, no data follows.  See
	// tools/libs/guest/xg_sr_common.h: page_type_to_populate(),
	// page_type_has_stream_data().
	pageXAlloc = uint64(0xe) << 60

	// pagesPerRecord is MAX_BATCH_SIZE of tools/libs/guest/xg_save_restore.h:
	// the restorer populates a record's pages by one hypercall.
	pagesPerRecord = 1024
)

// encoder writes records; the first error sticks and silences the rest.
type encoder struct {
	w   io.Writer
	err error
}

func (e *encoder) bytes(b []byte) {
	if e.err == nil {
		_, e.err = e.w.Write(b)
	}
}

// record writes a record header, the body, and zeroes up to the next multiple
// of eight.  Both streams use the same form; the length excludes the padding.
func (e *encoder) record(typ uint32, body []byte) {
	var hdr [8]byte
	binary.LittleEndian.PutUint32(hdr[0:], typ)
	binary.LittleEndian.PutUint32(hdr[4:], uint32(len(body)))
	e.bytes(hdr[:])
	e.bytes(body)
	if pad := -len(body) & 7; pad != 0 {
		var zero [8]byte
		e.bytes(zero[:pad])
	}
}

// xlHeader writes struct save_file_header and its optional data: the length
// of the JSON, its terminating NUL included, then the JSON.
func (e *encoder) xlHeader(json []byte) {
	le := binary.LittleEndian
	b := []byte(xlMagic)
	b = le.AppendUint32(b, xlByteOrder)
	b = le.AppendUint32(b, xlMandatoryJSON|xlMandatoryStream2)
	b = le.AppendUint32(b, 0) // optional_flags
	b = le.AppendUint32(b, uint32(4+len(json)+1))
	b = le.AppendUint32(b, uint32(len(json)+1))
	b = append(b, json...)
	b = append(b, 0)
	e.bytes(b)
}

// libxlHeader writes libxl__sr_hdr; its fields are big endian whatever the
// options say of the records.
func (e *encoder) libxlHeader() {
	be := binary.BigEndian
	b := be.AppendUint64(nil, libxlIdent)
	b = be.AppendUint32(b, libxlVersion)
	b = be.AppendUint32(b, 0) // options: little endian, not legacy
	e.bytes(b)
}

// libxcHeaders writes xc_sr_ihdr, in big endian, and xc_sr_dhdr, in the order
// that the image header's options name, here little endian.
func (e *encoder) libxcHeaders(major, minor uint32) {
	be, le := binary.BigEndian, binary.LittleEndian
	b := be.AppendUint64(nil, libxcMarker)
	b = be.AppendUint32(b, libxcID)
	b = be.AppendUint32(b, libxcVersion)
	b = be.AppendUint16(b, 0) // options: little endian
	b = be.AppendUint16(b, 0)
	b = be.AppendUint32(b, 0)

	b = le.AppendUint32(b, dhdrTypeHVM)
	b = le.AppendUint16(b, pageShift)
	b = le.AppendUint16(b, 0)
	b = le.AppendUint32(b, major)
	b = le.AppendUint32(b, minor)
	e.bytes(b)
}

// pages writes PAGE_DATA records of type XALLOC for all gfns of the ranges.
func (e *encoder) pages(ranges []Range) {
	le := binary.LittleEndian
	body := make([]byte, 0, 8+8*pagesPerRecord)
	count := 0
	flush := func() {
		if count == 0 {
			return
		}
		le.PutUint32(body, uint32(count))
		e.record(recPageData, body)
		count = 0
	}
	for _, r := range ranges {
		for gfn := r.First; gfn < r.First+abi.GFN(r.Count) && e.err == nil; gfn++ {
			if count == 0 {
				body = append(body[:0], make([]byte, 8)...)
			}
			body = le.AppendUint64(body, uint64(gfn)|pageXAlloc)
			if count++; count == pagesPerRecord {
				flush()
			}
		}
	}
	flush()
}

func (e *encoder) tscInfo(t TSCInfo) {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, t.Mode)
	b = le.AppendUint32(b, t.KHz)
	b = le.AppendUint64(b, t.NSec)
	b = le.AppendUint32(b, t.Incarnation)
	b = le.AppendUint32(b, 0)
	e.record(recTSCInfo, b)
}

func (e *encoder) hvmParams(params []HVMParam) {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, uint32(len(params)))
	b = le.AppendUint32(b, 0)
	for _, p := range params {
		b = le.AppendUint64(b, uint64(p.Index))
		b = le.AppendUint64(b, p.Value)
	}
	e.record(recHVMParams, b)
}
