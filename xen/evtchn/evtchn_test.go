// SPDX-License-Identifier: Apache-2.0

package evtchn

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/kemari-ft/kemari/xen/abi"
)

func ports(p ...uint32) []byte {
	var b []byte
	for _, x := range p {
		b = binary.NativeEndian.AppendUint32(b, x)
	}
	return b
}

func TestWaitReadsManyPorts(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	h := newHandle(r)
	defer h.Close()
	if _, err := w.Write(ports(5, 9, 7)); err != nil {
		t.Fatal(err)
	}
	buf := make([]abi.Port, 2)
	var got []abi.Port
	for len(got) < 3 {
		n, err := h.Wait(buf)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, buf[:n]...)
	}
	if !slices.Equal(got, []abi.Port{5, 9, 7}) {
		t.Errorf("ports %v", got)
	}
	if n, err := h.Wait(nil); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

func TestCloseEndsWait(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	h := newHandle(r)
	done := make(chan error)
	go func() {
		_, err := h.Wait(make([]abi.Port, 1))
		done <- err
	}()
	time.Sleep(10 * time.Millisecond)
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, os.ErrClosed) {
		t.Errorf("wait: %v", err)
	}
	if err := h.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("second close: %v", err)
	}
	if err := h.Notify(1); !errors.Is(err, syscall.EBADF) {
		t.Errorf("notify: %v", err)
	}
}

func TestUnmaskWritesPorts(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	h := newHandle(w)
	all := make([]abi.Port, 1500) // more than a page
	want := make([]uint32, len(all))
	for i := range all {
		all[i], want[i] = abi.Port(i), uint32(i)
	}
	if err := h.Unmask(all...); err != nil {
		t.Fatal(err)
	}
	if err := h.Unmask(); err != nil {
		t.Fatal(err)
	}
	h.Close()
	got, err := io.ReadAll(r)
	if err != nil || !slices.Equal(got, ports(want...)) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestErrors(t *testing.T) {
	f, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	h := newHandle(f) // /dev/null answers ENOTTY
	defer h.Close()
	_, err = h.BindInterdomain(5, 9)
	if !errors.Is(err, syscall.ENOTTY) || !strings.Contains(err.Error(), "port 9 of d5") {
		t.Error(err)
	}
	for name, err := range map[string]error{"unbind": h.Unbind(3), "notify": h.Notify(3)} {
		if !errors.Is(err, syscall.ENOTTY) || !strings.Contains(err.Error(), name+" of port 3") {
			t.Error(err)
		}
	}
}

// TestEventsDoNotAllocate sends a wait through a pipe and the ioctl of Notify
// to a device that refuses it: building that error is outside the measurement.
func TestEventsDoNotAllocate(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	h := newHandle(r)
	defer h.Close()
	out := newHandle(w)
	buf := make([]abi.Port, 4)
	arg := abi.Port(1)
	if n := testing.AllocsPerRun(100, func() {
		if err := out.Unmask(5); err != nil {
			t.Fatal(err)
		}
		if n, err := h.Wait(buf); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		if _, errno := out.ioctl(abi.IoctlEvtchnNotify, unsafe.Pointer(&arg)); errno != syscall.ENOTTY {
			t.Fatal(errno)
		}
	}); n != 0 {
		t.Errorf("an event allocates %v times", n)
	}
}
