// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/kemari-ft/kemari/tests/check"
	"golang.org/x/sys/unix"
)

const (
	lanes      = 4       // writes in flight at once
	window     = 64      // how far acknowledgements may run ahead of a record that hangs
	maxRecords = 1 << 22 // bounds the memory for their sums
)

// disk appends records and remembers which of them the kernel acknowledged.
type disk struct {
	name string
	fd   int
	size int64
	boot check.BootID
	now  func() (mono int64, link uint64)
	most uint64 // highest record number there is room for

	mu       sync.Mutex // protects all below
	may      *sync.Cond // signalled when a lane may go on
	credit   int        // records that may be written outside of the disk load
	busy     bool       // the disk load: no credit needed
	stopping bool
	lanes    int         // still running
	sums     []check.Sum // of record i+1; 0: not acknowledged (a true sum is 0 once in 2^64)
	st       check.DiskStatus
}

func openDisk(name string, boot check.BootID, now func() (int64, uint64)) (*disk, error) {
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s for direct I/O: %w", name, err)
	}
	size, err := unix.Seek(fd, 0, io.SeekEnd)
	if err != nil {
		return nil, fmt.Errorf("size of %s: %w", name, err)
	}
	d := &disk{name: name, fd: fd, size: size, boot: boot, now: now, most: min(check.Capacity(size), maxRecords)}
	d.may = sync.NewCond(&d.mu)
	d.st = check.DiskStatus{Device: name, Size: size}
	if d.sums, err = table[check.Sum](int(d.most)); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *disk) start() {
	d.lanes = lanes
	for range lanes {
		go d.lane()
	}
}

// lane writes one record after the other.
func (d *disk) lane() {
	defer d.left()
	buf, err := pages(8 * check.SectorSize) // O_DIRECT wants it aligned
	if err != nil {
		d.failed(err)
		return
	}
	for {
		seq, ok := d.next()
		if !ok {
			return
		}
		mono, link := d.now()
		rec, sum := check.Encode(buf, d.boot, seq, mono, link)
		for {
			err := d.write(rec, seq)
			if err == nil {
				break
			}
			d.failed(err)
			time.Sleep(time.Second)
		}
		d.acknowledged(seq, sum)
	}
}

func (d *disk) write(rec []byte, seq uint64) error {
	n, err := unix.Pwrite(d.fd, rec, check.Offset(seq))
	if err != nil || n != len(rec) {
		return fmt.Errorf("write record %d to %s: %d of %d bytes: %w", seq, d.name, n, len(rec), orShort(err))
	}
	if check.KindOf(seq) == check.Synced {
		if err := unix.Fsync(d.fd); err != nil {
			return fmt.Errorf("fsync %s after record %d: %w", d.name, seq, err)
		}
	}
	return nil
}

func orShort(err error) error {
	if err == nil {
		return io.ErrShortWrite
	}
	return err
}

// next waits until a record may be written and answers its number, or false
// when there are to be no more.
func (d *disk) next() (uint64, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for !d.stopping && (d.credit == 0 && !d.busy || d.st.Issued-d.st.AckedThrough >= window) {
		d.may.Wait()
	}
	if d.st.Issued >= d.most {
		d.st.Full = true
	}
	if d.stopping || d.st.Full {
		return 0, false
	}
	if d.credit > 0 {
		d.credit--
	}
	d.st.Issued++
	return d.st.Issued, true
}

func (d *disk) acknowledged(seq uint64, sum check.Sum) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sums[seq-1] = sum
	d.st.Acked++
	if check.KindOf(seq) == check.Synced {
		d.st.Synced++
		d.st.SyncedLast = max(d.st.SyncedLast, seq)
	}
	for n := d.st.AckedThrough; n < d.st.Issued && d.sums[n] != 0; n++ {
		d.st.Digest.Add(n+1, d.sums[n])
		d.st.AckedThrough = n + 1
	}
	d.may.Broadcast()
}

func (d *disk) failed(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.st.Errors++
	d.st.LastError = err.Error()
}

func (d *disk) left() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lanes--
}

// allow lets n more records be written; those not yet begun do not add up.
func (d *disk) allow(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.credit = n
	d.may.Signal()
}

func (d *disk) flatOut(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.busy = on
	d.may.Broadcast()
}

// stop lets what was begun end, but does not wait for ever: a disk that hangs
// must not keep the guest from shutting down.
func (d *disk) stop(patience time.Duration) {
	d.mu.Lock()
	d.stopping = true
	d.may.Broadcast()
	d.mu.Unlock()
	for start := time.Now(); time.Since(start) < patience; time.Sleep(10 * time.Millisecond) {
		d.mu.Lock()
		left := d.lanes
		d.mu.Unlock()
		if left == 0 {
			return
		}
	}
}

func (d *disk) through() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.st.AckedThrough
}

func (d *disk) status() *check.DiskStatus {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.st
	for n := s.AckedThrough + 1; n < s.Issued; n++ { // record AckedThrough+1 is not acknowledged
		if d.sums[n] != 0 {
			s.Beyond = append(s.Beyond, check.Beyond{Seq: n + 1, Sum: d.sums[n]})
		}
	}
	return &s
}

// verify reads back, past the page cache, every record acknowledged by now.
func (d *disk) verify(v *check.Verify) {
	s := d.status()
	acked := func(seq uint64) (check.Sum, bool) {
		d.mu.Lock()
		defer d.mu.Unlock()
		sum := d.sums[seq-1]
		return sum, sum != 0
	}
	buf, err := pages(check.GroupSize)
	if err != nil {
		v.Error = err.Error()
		return
	}
	defer unix.Munmap(buf)
	at := int64(-1)
	for seq := uint64(1); seq <= s.Issued; seq++ {
		// Asked before the group is read: what is acknowledged later may not be in it.
		want, ok := acked(seq)
		if off := check.Offset(seq); off-off%check.GroupSize != at {
			at = off - off%check.GroupSize
			if n, err := unix.Pread(d.fd, buf, at); err != nil || n != len(buf) {
				v.Error = fmt.Sprintf("read %d bytes of %s at %d: %d read, %v", len(buf), d.name, at, n, err)
				return
			}
		}
		if !ok {
			continue
		}
		state, sum := check.Judge(buf[check.Offset(seq)-at:], d.boot, seq)
		if state == check.Whole && sum != want {
			state = check.Altered
		}
		v.Records++
		switch state {
		case check.Missing:
			v.Missing++
		case check.Torn:
			v.Torn++
		case check.Altered:
			v.Altered++
		}
		if state != check.Whole && v.FirstBad == 0 {
			v.FirstBad = seq
		}
	}
}
