// SPDX-License-Identifier: Apache-2.0

package nbd

import (
	"bytes"
	"context"
	"crypto/sha256"
	"path/filepath"
	"testing"
	"time"
)

const testSize = 1 << 20

func newLUN(t *testing.T) *LUN {
	t.Helper()
	l, err := Create(filepath.Join(t.TempDir(), "lun"), testSize)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestTwoHostsShareTheDisk(t *testing.T) {
	l := newLUN(t)
	a, b := dial(t, l, "a", false), dial(t, l, "b", true)
	if a.size != testSize || b.size != testSize {
		t.Errorf("clients saw sizes %d and %d, want %d", a.size, b.size, testSize)
	}
	if e := <-a.write(4096, "written by a"); e.err != 0 {
		t.Fatalf("write: error %d", e.err)
	}
	if got := b.mustRead(4096, 12); got != "written by a" {
		t.Errorf("b read %q", got)
	}
	if e := <-a.start(Flush, 0, 0, nil); e.err != 0 {
		t.Errorf("flush: error %d", e.err)
	}
	if e := <-b.start(Trim, 4096, 512, nil); e.err != 0 {
		t.Errorf("trim: error %d", e.err)
	}
	if got := a.mustRead(4096, 4); got != "\x00\x00\x00\x00" {
		t.Errorf("a read %q after the trim", got)
	}
	log := l.Log()
	want := []struct {
		host   string
		op     Op
		landed uint64
	}{{"a", Write, 1}, {"b", Read, 0}, {"a", Flush, 0}, {"b", Trim, 2}, {"a", Read, 0}}
	if len(log) != len(want) {
		t.Fatalf("log has %d entries, want %d", len(log), len(want))
	}
	for i, w := range want {
		if e := log[i]; e.Host != w.host || e.Op != w.op || e.Landed != w.landed || !e.Answered {
			t.Errorf("log entry %d: %+v, want %+v", i, e, w)
		}
	}
	if want := sha256.Sum256([]byte("written by a")); log[0].Hash != want {
		t.Error("the log has another hash than that of the data")
	}
}

func TestRefusesWhatIsOutside(t *testing.T) {
	l := newLUN(t)
	c := dial(t, l, "a", false)
	for _, r := range []struct {
		op     Op
		offset uint64
		length uint32
		want   Errno
	}{
		{Read, testSize, 1, EINVAL},
		{Read, ^uint64(0), 2, EINVAL},
		{Trim, testSize - 1, 2, ENOSPC},
		{WriteZeroes, ^uint64(0) - 10, 512, ENOSPC},
		{Op(77), 0, 0, EINVAL},
		{Read, testSize - 1, 1, 0},
	} {
		if got := <-c.start(r.op, r.offset, r.length, nil); got.err != r.want {
			t.Errorf("%v of %d at %d: error %d, want %d", r.op, r.length, r.offset, got.err, r.want)
		}
	}
}

func TestFailDropDelayAndLimit(t *testing.T) {
	l := newLUN(t)
	c := dial(t, l, "a", false)
	l.Add(&Rule{Match: Match{Ops: []Op{Write}}, Fail: EIO, Limit: 1})
	drop := l.Add(&Rule{Match: Match{Host: "a", From: 512, To: 1024}, Drop: true})

	if e := <-c.write(0, "fails"); e.err != EIO {
		t.Errorf("first write: error %d, want EIO", e.err)
	}
	if e := <-c.write(0, "works"); e.err != 0 {
		t.Errorf("second write: error %d", e.err)
	}
	dropped := c.write(1000, "dropped") // overlaps the end of the range
	if err := drop.Taken(within(t, 5*time.Second), 1); err != nil {
		t.Fatal(err)
	}
	if got := c.mustRead(0, 5); got != "works" { // and the connection goes on
		t.Errorf("read %q", got)
	}
	select {
	case e := <-dropped:
		t.Errorf("a dropped write was answered: %+v", e)
	default:
	}
	drop.Remove()
	slow := l.Add(&Rule{Delay: 30 * time.Millisecond})
	begin := time.Now()
	c.mustRead(0, 1)
	if d := time.Since(begin); d < slow.Delay {
		t.Errorf("a request delayed by %v was answered after %v", slow.Delay, d)
	}
}

func TestDrainWaitsForTheDead(t *testing.T) {
	l := newLUN(t)
	a, b := dial(t, l, "a", false), dial(t, l, "b", false)
	hold := l.Add(&Rule{Match: Match{Host: "a", Ops: []Op{Write}}, Hold: true})
	a.write(0, "late")
	if err := hold.Taken(within(t, 5*time.Second), 1); err != nil {
		t.Fatal(err)
	}
	if err := l.Drain(within(t, 20*time.Millisecond), "a"); err == nil {
		t.Fatal("host a counts as drained while it is connected")
	}
	a.conn.Close() // the power cut
	if err := l.Drain(within(t, 50*time.Millisecond), "a"); err == nil {
		t.Fatal("host a counts as drained while its write is held")
	}
	if got := b.mustRead(0, 4); got != "\x00\x00\x00\x00" {
		t.Fatalf("the held write is visible: %q", got)
	}
	if n := hold.Release(); n != 1 {
		t.Errorf("released %d requests, want 1", n)
	}
	if err := l.Drain(within(t, 5*time.Second), "a"); err != nil {
		t.Fatal(err)
	}
	if got := b.mustRead(0, 4); got != "late" {
		t.Errorf("after the release b reads %q", got)
	}
	if e := l.Log()[0]; e.Landed != 1 || e.Answered {
		t.Errorf("the dead host's write: %+v; want it landed and unanswered", e)
	}
}

func TestStrayWriteLandsAfterDrain(t *testing.T) {
	l := newLUN(t)
	a, b := dial(t, l, "a", false), dial(t, l, "b", false)
	hold := l.Add(&Rule{Match: Match{Host: "a"}, Hold: true, Stray: true})
	a.write(0, "stray")
	if err := hold.Taken(within(t, 5*time.Second), 1); err != nil {
		t.Fatal(err)
	}
	a.conn.Close()
	if err := l.Drain(within(t, 5*time.Second), "a"); err != nil {
		t.Fatal(err)
	}
	<-b.write(0, "by b!")
	hold.Release()
	for l.Log()[0].Done.IsZero() {
		time.Sleep(time.Millisecond)
	}
	if got := b.mustRead(0, 5); got != "stray" {
		t.Errorf("b reads %q, want what the stray write left", got)
	}
	if log := l.Log(); log[0].Landed != 2 || log[1].Landed != 1 {
		t.Errorf("landed as numbers %d and %d, want the stray write second", log[0].Landed, log[1].Landed)
	}
}

func TestDiscardLosesWrites(t *testing.T) {
	l := newLUN(t)
	a := dial(t, l, "a", false)
	hold := l.Add(&Rule{Match: Match{Ops: []Op{Write}}, Hold: true})
	a.write(0, "lost")
	if err := hold.Taken(within(t, 5*time.Second), 1); err != nil {
		t.Fatal(err)
	}
	a.conn.Close()
	hold.Discard()
	if err := l.Drain(within(t, 5*time.Second), "a"); err != nil {
		t.Fatal(err)
	}
	var got [4]byte
	if _, err := l.ReadAt(got[:], 0); err != nil || got != [4]byte{} {
		t.Errorf("the disk holds %q, %v", got, err)
	}
}

func TestTornWriteNeverLands(t *testing.T) {
	l := newLUN(t)
	a := dial(t, l, "a", false)
	a.conn.Write(append(header(Write, 1, 0, 4096), "torn"...))
	a.conn.Close()
	if err := l.Drain(within(t, 5*time.Second), "a"); err != nil {
		t.Fatal(err)
	}
	if n := len(l.Log()); n != 0 {
		t.Errorf("log has %d entries, want none", n)
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add(header(Write, 1, 2, 3), uint64(512))
	f.Add(header(Read, 1, ^uint64(0), ^uint32(0)), uint64(512))
	f.Fuzz(func(t *testing.T, in []byte, size uint64) {
		if len(in) < requestLen {
			return
		}
		r, err := parseRequest([requestLen]byte(in))
		if err != nil {
			return
		}
		got := header(r.op, r.cookie, r.offset, r.length)
		got[4], got[5] = in[4], in[5] // flags
		if !bytes.Equal(got, in[:requestLen]) {
			t.Errorf("%x was read as %+v", in, r)
		}
		if r.op == Flush || r.check(size) != 0 {
			return
		}
		if end := r.offset + uint64(r.length); end < r.offset || end > size {
			t.Errorf("%+v was let through for a disk of %d", r, size)
		}
	})
}

// duplex reads from in and forgets what is written.
type duplex struct{ in *bytes.Reader }

func (d duplex) Read(p []byte) (int, error)  { return d.in.Read(p) }
func (d duplex) Write(p []byte) (int, error) { return len(p), nil }

func FuzzNegotiate(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x03IHAVEOPT\x00\x00\x00\x07\x00\x00\x00\x07\x00\x00\x00\x01a\x00\x00"))
	f.Add([]byte("\x00\x00\x00\x03IHAVEOPT\x00\x00\x00\x01\x00\x00\x00\x01a"))
	f.Add([]byte("\x00\x00\x00\x03IHAVEOPT\x00\x00\x00\x06\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, in []byte) {
		name, err := negotiate(duplex{bytes.NewReader(in)}, testSize)
		if err == nil && !bytes.Contains(in, []byte(name)) {
			t.Errorf("export %q came from nowhere", name)
		}
	})
}
