// SPDX-License-Identifier: Apache-2.0

package gntdev

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"unsafe"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/internal/sys"
)

// CopySegment copies between local memory and one granted page. Xen does the
// copy and logs the guest's page as dirty.
type CopySegment struct {
	Ref     abi.GrantRef
	Dom     abi.DomID
	Offset  uint16 // into the granted page
	Local   []byte // at most PageSize-Offset bytes
	ToGuest bool   // from Local to the page; else the other way
	Status  int16  // out: GNTST_*
}

// Copy performs the segments, in one system call, and sets their Status. If
// some failed, the error is a *GrantError naming them; the others were done. If
// the kernel gave up on the whole call, the error is a *CopyError and no Status
// can be relied on. Copy does not allocate once it has grown to the largest
// batch.
func (d *Device) Copy(segs []CopySegment) error {
	if len(segs) == 0 {
		return nil
	}
	d.copyMu.Lock()
	defer d.copyMu.Unlock()
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.closed {
		return fmt.Errorf("gntdev: copy: %w", os.ErrClosed)
	}
	if err := d.encode(segs); err != nil {
		return err
	}
	d.one = abi.GntdevGrantCopy{Count: uint32(len(segs)), Segments: &d.segs[0]}
	_, errno := sys.Ioctl(d.fd, abi.IoctlGntdevGrantCopy, unsafe.Pointer(&d.one))
	clear(d.pins)
	if errno != 0 {
		return &CopyError{Segments: len(segs), Dom: segs[0].Dom, Errno: errno}
	}
	return d.decode(segs)
}

// encode checks segs and writes them in the kernel's layout. The local
// addresses are integers there, invisible to the garbage collector: pins keeps
// the memory reachable and forces it into the heap, where it does not move.
func (d *Device) encode(segs []CopySegment) error {
	d.segs = d.segs[:0]
	d.pins = d.pins[:0]
	for i := range segs {
		s := &segs[i]
		if len(s.Local) == 0 || int(s.Offset)+len(s.Local) > abi.PageSize {
			return fmt.Errorf("gntdev: copy segment %d, grant %d of %s: %d bytes at offset %d do not lie in a page",
				i, s.Ref, s.Dom, len(s.Local), s.Offset)
		}
		p := unsafe.SliceData(s.Local)
		local := uint64(uintptr(unsafe.Pointer(p)))
		foreign := abi.GntdevForeign(s.Ref, s.Offset, s.Dom)
		// A kernel that stops early leaves this value in place.
		out := abi.GntdevCopySegment{Len: uint16(len(s.Local)), Status: abi.GNTSTGeneralError}
		if s.ToGuest {
			out.Source, out.Dest, out.Flags = local, foreign, abi.GntcopyDestGref
		} else {
			out.Source, out.Dest, out.Flags = foreign, local, abi.GntcopySourceGref
		}
		d.segs = append(d.segs, out)
		d.pins = append(d.pins, p)
	}
	return nil
}

func (d *Device) decode(segs []CopySegment) error {
	failed := 0
	for i := range segs {
		segs[i].Status = int16(d.segs[i].Status)
		if d.segs[i].Status != abi.GNTSTOkay {
			failed++
		}
	}
	if failed == 0 {
		return nil
	}
	e := &GrantError{Total: len(segs), Failed: make([]FailedGrant, 0, failed)}
	for i := range segs {
		if st := d.segs[i].Status; st != abi.GNTSTOkay {
			e.Failed = append(e.Failed, FailedGrant{Segment: i, Dom: segs[i].Dom, Ref: segs[i].Ref, Status: st})
		}
	}
	return e
}

// FailedGrant is one refused segment of a Copy.
type FailedGrant struct {
	Segment int
	Dom     abi.DomID
	Ref     abi.GrantRef
	Status  abi.GrantStatus
}

// GrantError lists the segments of a Copy that Xen refused.
type GrantError struct {
	Total  int
	Failed []FailedGrant
}

func (e *GrantError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "gntdev: %d of %d grant copies failed:", len(e.Failed), e.Total)
	for i, f := range e.Failed {
		if i == 8 {
			fmt.Fprintf(&b, " and %d more", len(e.Failed)-i)
			break
		}
		fmt.Fprintf(&b, " %s ref %d %s;", f.Dom, f.Ref, f.Status)
	}
	return strings.TrimSuffix(b.String(), ";")
}

// CopyError is a Copy which the kernel refused as a whole: errors.Is matches
// its Errno.
type CopyError struct {
	Segments int
	Dom      abi.DomID // of the first segment
	Errno    syscall.Errno
}

func (e *CopyError) Error() string {
	return fmt.Sprintf("gntdev: grant copy of %d segments with %s: %s", e.Segments, e.Dom, sys.Describe(e.Errno))
}

// Unwrap returns the errno.
func (e *CopyError) Unwrap() error { return e.Errno }

// MapError is a failed Map: errors.Is matches its Errno.
type MapError struct {
	Dom   abi.DomID
	Refs  []abi.GrantRef
	Errno syscall.Errno
}

func (e *MapError) Error() string {
	hint := ""
	if e.Errno == syscall.EINVAL {
		hint = "; at least one reference is not granted to this domain, or not writable"
	}
	return fmt.Sprintf("gntdev: mapping grants %v of %s: %s%s", e.Refs, e.Dom, sys.Describe(e.Errno), hint)
}

// Unwrap returns the errno.
func (e *MapError) Unwrap() error { return e.Errno }
