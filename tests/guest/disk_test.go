// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kemari-ft/kemari/tests/check"
	"golang.org/x/sys/unix"
)

const boot = "01020304-0506-0708-0000-000000000000"

// testDisk is a disk of ten groups in a file, which the checker reads as well.
func testDisk(t *testing.T) (*disk, *os.File) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(10 * check.GroupSize); err != nil {
		t.Fatal(err)
	}
	id, err := check.ParseBootID(boot)
	if err != nil {
		t.Fatal(err)
	}
	d, err := openDisk(f.Name(), id, func() (int64, uint64) { return monotonic(), 7 })
	if errors.Is(err, unix.EINVAL) {
		t.Skipf("no direct I/O here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d, f
}

// wait runs cond until it holds.
func wait(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for range 1000 {
		if cond() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s: did not happen in 10 s", what)
}

// What the guest says of its disk is what the checker finds on it.
func TestDiskFillsAndIsJudgedWhole(t *testing.T) {
	d, f := testDisk(t)
	d.start()
	d.allow(1)
	wait(t, "one record", func() bool { return d.through() == 1 })
	time.Sleep(50 * time.Millisecond)
	if n := d.status().Issued; n != 1 {
		t.Errorf("%d records issued where one was allowed", n)
	}
	d.flatOut(true)
	wait(t, "full disk", func() bool { return d.status().Full && d.through() == 80 })
	d.stop(5 * time.Second)

	s := check.Status{BootID: boot, Disk: d.status()}
	if s.Disk.Synced != 26 || s.Disk.SyncedLast != 78 || s.Disk.Errors != 0 {
		t.Errorf("%+v", s.Disk)
	}
	r, err := check.Disk(f, s)
	if err != nil || r.Err() != nil || r.Checked != 80 {
		t.Errorf("%+v, %v, %v", r, err, r.Err())
	}
	var v check.Verify
	if d.verify(&v); v.Records != 80 || v.Missing+v.Torn+v.Altered != 0 || v.Error != "" {
		t.Errorf("%+v", v)
	}
	// A disk that lies is caught by the guest itself.
	for _, at := range []int64{check.Offset(8) + 100, check.Offset(41)} {
		if _, err := f.WriteAt(make([]byte, 512), at); err != nil {
			t.Fatal(err)
		}
	}
	v = check.Verify{}
	if d.verify(&v); v.Altered != 1 || v.Missing != 1 || v.FirstBad != 8 {
		t.Errorf("two records spoilt: %+v", v)
	}
}

func TestDiskAcknowledgedOutOfOrder(t *testing.T) {
	d, _ := testDisk(t)
	d.busy = true
	for range 5 {
		d.next()
	}
	d.acknowledged(2, 22)
	d.acknowledged(5, 55)
	s := d.status()
	if s.AckedThrough != 0 || s.Acked != 2 || len(s.Beyond) != 2 || s.Beyond[0] != (check.Beyond{Seq: 2, Sum: 22}) || s.Beyond[1].Seq != 5 {
		t.Errorf("%+v", s)
	}
	d.acknowledged(1, 11)
	d.acknowledged(3, 33)
	if s = d.status(); s.AckedThrough != 3 || s.Acked != 4 || len(s.Beyond) != 1 || s.Beyond[0].Seq != 5 {
		t.Errorf("%+v", s)
	}
	var want check.Digest
	for i, sum := range []check.Sum{11, 22, 33} {
		want.Add(uint64(i+1), sum)
	}
	if s.Digest != want {
		t.Error("the digest is not that of records 1 to 3")
	}
}

func TestDiskErrorsAreToldAndNotAcknowledged(t *testing.T) {
	d, _ := testDisk(t)
	ro, err := unix.Open(d.name, unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	d.fd = ro
	d.start()
	d.allow(1)
	wait(t, "error", func() bool { return d.status().Errors > 0 })
	if s := d.status(); s.Acked != 0 || s.LastError == "" {
		t.Errorf("%+v", s)
	}
}

func TestMemLoadSeesALostPage(t *testing.T) {
	m := newMemLoad()
	if err := m.set(1, 1); err != nil {
		t.Fatal(err)
	}
	for range 3 * 256 {
		m.write()
	}
	if s := m.status(); s.Written != 768 || s.Mismatches != 0 {
		t.Fatalf("%+v", s)
	}
	binary.LittleEndian.PutUint64(m.pages[100*4096:], 2) // an earlier epoch's page
	clear(m.pages[101*4096 : 102*4096])
	for range 256 {
		m.write()
	}
	if s := m.status(); s.Mismatches != 2 {
		t.Errorf("two pages spoilt: %+v", s)
	}
}
