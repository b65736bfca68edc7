// SPDX-License-Identifier: Apache-2.0

package blkif

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/gntdev"
)

// Implementation constants.
const (
	// bufferSize holds the data of the longest request.
	bufferSize = MaxIndirectSegments * abi.PageSize
	// copyBatch is how many segments are copied before a freeze gets its
	// turn: 128 KiB, some tens of microseconds.
	copyBatch = 32
)

// newBuffers allocates n buffers for direct I/O outside the Go heap: aligned to
// a page, and taking memory only as far as they were ever used.
func newBuffers(n int) ([][]byte, error) {
	bufs := make([][]byte, 0, n)
	for range n {
		b, err := unix.Mmap(-1, 0, bufferSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			for _, b := range bufs {
				err = errors.Join(err, unix.Munmap(b))
			}
			return nil, fmt.Errorf("allocating buffers for %d requests: %w", n, err)
		}
		bufs = append(bufs, b)
	}
	return bufs, nil
}

// worker does one request at a time.
type worker struct {
	dev  *Device
	buf  []byte
	segs [MaxIndirectSegments]segment
	copy [copyBatch]gntdev.CopySegment
}

func (d *Device) newWorker(buf []byte) *worker { return &worker{dev: d, buf: buf} }

func (w *worker) run(work <-chan *request) {
	for r := range work {
		status, err := w.do(&r.raw)
		if err != nil {
			w.dev.report(w.dev.errf("%s at sector %d: %w", opName(r.raw.transferOp()), r.raw.sector(), err))
		}
		r.queue.complete(r, status)
	}
	if err := unix.Munmap(w.buf); err != nil {
		w.dev.report(w.dev.errf("releasing a buffer: %w", err))
	}
}

func opName(op uint8) string {
	names := [...]string{
		abi.BlkifOpRead: "read", abi.BlkifOpWrite: "write", abi.BlkifOpWriteBarrier: "write with barrier",
		abi.BlkifOpFlushDiskcache: "flush", abi.BlkifOpDiscard: "discard",
	}
	if int(op) < len(names) && names[op] != "" {
		return names[op]
	}
	return fmt.Sprintf("operation %d", op)
}

// do executes a request and returns the status of its response. The error, if
// any, is for the operator.
func (w *worker) do(r *raw) (status int16, err error) {
	switch r.transferOp() {
	case abi.BlkifOpRead:
		err = w.read(r)
	case abi.BlkifOpWrite:
		err = w.write(r)
	case abi.BlkifOpFlushDiskcache:
		err = w.flush(r)
	case abi.BlkifOpDiscard:
		err = w.discard(r)
	case abi.BlkifOpWriteBarrier:
		// Not offered; blkif.h lets a back end decline it at any time.
		return abi.BlkifRspEOPNOTSUPP, nil
	default:
		err = errBadRequest
	}
	switch {
	case err == nil:
		return abi.BlkifRspOkay, nil
	case errors.Is(err, errors.ErrUnsupported):
		return abi.BlkifRspEOPNOTSUPP, nil
	}
	return abi.BlkifRspError, err
}

// transfer checks a request that moves data: its segments, now in w.segs, and
// the range of the disk.
func (w *worker) transfer(r *raw) (segs []segment, off int64, n int, err error) {
	count := r.segments()
	var desc []byte
	switch {
	case !r.isIndirect() && count >= 1 && count <= maxDirectSegments:
		desc = r.direct()
	case r.isIndirect() && count >= 1 && count <= MaxIndirectSegments:
		// Copied once, like the request: the page stays the guest's.
		desc = w.buf[:count*segmentSize]
		w.segs[0] = segment{ref: r.indirectRef(), len: uint16(len(desc))}
		if err := w.copyGuest(w.segs[:1], false); err != nil {
			return nil, 0, 0, fmt.Errorf("its indirect segments: %w", err)
		}
	default:
		return nil, 0, 0, fmt.Errorf("%w: %d segments", errBadRequest, count)
	}
	if n, err = parseSegments(desc, count, w.segs[:]); err != nil {
		return nil, 0, 0, err
	}
	off, _, err = extent(r.sector(), uint64(n)>>sectorShift, w.dev.cfg.Store.Size(), w.dev.cfg.Store.SectorSize())
	return w.segs[:count], off, n, err
}

func (w *worker) read(r *raw) error {
	segs, off, n, err := w.transfer(r)
	if err != nil {
		return err
	}
	if _, err := w.dev.cfg.Store.ReadAt(w.buf[:n], off); err != nil {
		return err
	}
	return w.copyGuest(segs, true)
}

func (w *worker) write(r *raw) error {
	if w.dev.cfg.ReadOnly {
		return fmt.Errorf("%w: the disk is read-only", errBadRequest)
	}
	segs, off, n, err := w.transfer(r)
	if err != nil {
		return err
	}
	if err := w.copyGuest(segs, false); err != nil {
		return err
	}
	return w.store(w.buf[:n], off)
}

// flush covers what was answered before it, and then writes its own data if it
// has any, as blkback does with REQ_PREFLUSH.
func (w *worker) flush(r *raw) error {
	if err := w.dev.cfg.Store.Flush(); err != nil {
		return err
	}
	if r.segments() == 0 {
		return nil
	}
	return w.write(r)
}

func (w *worker) discard(r *raw) error {
	if w.dev.cfg.ReadOnly {
		return fmt.Errorf("%w: the disk is read-only", errBadRequest)
	}
	if r.isIndirect() {
		return errBadRequest
	}
	if r.discardFlag()&abi.BlkifDiscardSecure != 0 {
		return errors.ErrUnsupported // discard-secure is not offered
	}
	off, n, err := extent(r.sector(), r.discardSectors(), w.dev.cfg.Store.Size(), w.dev.cfg.Store.SectorSize())
	if err != nil || n == 0 {
		return err
	}
	return w.dev.cfg.Store.Discard(off, n)
}

// copyGuest moves w.buf, in order of segs, to or from the guest by grant copy.
func (w *worker) copyGuest(segs []segment, toGuest bool) error {
	pos := 0
	for len(segs) > 0 {
		batch := segs[:min(len(segs), copyBatch)]
		segs = segs[len(batch):]
		for k, s := range batch {
			w.copy[k] = gntdev.CopySegment{
				Ref: s.ref, Dom: w.dev.cfg.Dom, Offset: s.off,
				Local: w.buf[pos : pos+int(s.len)], ToGuest: toGuest,
			}
			pos += int(s.len)
		}
		w.dev.freeze.RLock()
		err := w.dev.moveData(w.copy[:len(batch)])
		w.dev.freeze.RUnlock()
		if err != nil {
			return err
		}
		for k := range batch {
			if st := abi.GrantStatus(w.copy[k].Status); st != abi.GNTSTOkay {
				return fmt.Errorf("grant %d: %s", batch[k].ref, st)
			}
		}
	}
	return nil
}
