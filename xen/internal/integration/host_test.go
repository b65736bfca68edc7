// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/domctl"
	"github.com/kemari-ft/kemari/xen/evtchn"
	"github.com/kemari-ft/kemari/xen/privcmd"
	"github.com/kemari-ft/kemari/xen/xenstore"
)

func needXen(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/dev/xen/privcmd"); err != nil {
		t.Skipf("not on Xen: %v", err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T) *domctl.Client {
	t.Helper()
	needXen(t)
	h, err := privcmd.Open()
	must(t, err)
	t.Cleanup(func() { h.Close() })
	c, err := domctl.New(h)
	must(t, err)
	return c
}

func TestHost(t *testing.T) {
	c := open(t)
	v, err := c.Version()
	must(t, err)
	caps, err := c.Capabilities()
	must(t, err)
	p, err := c.Physinfo()
	must(t, err)
	t.Logf("Xen %s (%s), %+v", v, caps, p)
	if p.CPUkHz == 0 || p.TotalPages < p.FreePages || p.CPUs == 0 {
		t.Error("physinfo makes no sense")
	}
	i, err := c.DomainInfo(abi.Dom0)
	must(t, err)
	t.Logf("dom0: %+v", i)
	if i.Is(abi.DomInfHVMGuest) {
		t.Error("dom0 is not PV: these packages were never tried in another kind")
	}
	if _, err := c.DomainInfo(0x7fe0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("a domain that does not exist: %v", err)
	}
}

func TestHypercallDoesNotAllocate(t *testing.T) {
	needXen(t)
	h, err := privcmd.Open()
	must(t, err)
	defer h.Close()
	if n := testing.AllocsPerRun(1000, func() {
		if _, errno := h.Call(abi.HypervisorXenVersion, abi.XenverVersion, 0); errno != 0 {
			t.Fatal(errno)
		}
	}); n != 0 {
		t.Errorf("a hypercall allocates %v times", n)
	}
}

func TestEventChannelLoop(t *testing.T) {
	needXen(t)
	h, err := evtchn.Open()
	must(t, err)
	defer h.Close()
	p, err := h.BindUnbound(abi.Dom0)
	must(t, err)
	q, err := h.BindInterdomain(abi.Dom0, p)
	must(t, err)
	wait := func() {
		t.Helper()
		buf := make([]abi.Port, 16)
		for {
			n, err := h.Wait(buf)
			must(t, err)
			got := buf[:n]
			must(t, h.Unmask(got...))
			// Binding makes q pending once.
			if slices.Contains(got, p) {
				return
			}
		}
	}
	for range 3 {
		must(t, h.Notify(q))
		wait()
	}
	done := make(chan error, 1)
	go func() {
		_, err := h.Wait(make([]abi.Port, 1))
		done <- err
	}()
	time.Sleep(50 * time.Millisecond)
	select {
	case err := <-done:
		t.Fatalf("an event out of nothing, or %v", err)
	default:
	}
	must(t, h.Notify(q))
	must(t, <-done)
	must(t, h.Unbind(q))
	must(t, h.Unbind(p))
}

func TestXenstore(t *testing.T) {
	needXen(t)
	c, err := xenstore.Dial("")
	must(t, err)
	defer c.Close()
	const base = "/test-xen-go"
	defer c.Rm(base)
	w, err := c.Watch(base)
	must(t, err)
	event := func() string {
		t.Helper()
		select {
		case e := <-w.C:
			return e.Path
		case <-time.After(10 * time.Second):
			t.Fatal("no event")
		}
		return ""
	}
	if p := event(); p != base {
		t.Errorf("first event %q", p)
	}
	must(t, c.Write(base+"/a", "1"))
	if p := event(); p != base+"/a" {
		t.Errorf("event %q", p)
	}
	must(t, c.Transaction(func(tx *xenstore.Tx) error {
		v, err := tx.Read(base + "/a")
		if err != nil {
			return err
		}
		return tx.Write(base+"/b", v+"2")
	}))
	if v, err := c.Read(base + "/b"); v != "12" || err != nil {
		t.Errorf("%q, %v", v, err)
	}
	perms := []xenstore.Perm{{Dom: 0, Access: xenstore.AccessNone}, {Dom: 77, Access: xenstore.AccessRead}}
	must(t, c.SetPerms(base+"/a", perms...))
	if got, err := c.GetPerms(base + "/a"); err != nil || !slices.Equal(got, perms) {
		t.Errorf("%v, %v", got, err)
	}
	if names, err := c.List(base); err != nil || !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("%q, %v", names, err)
	}
	if _, err := c.Read(base + "/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if p, err := c.DomainPath(7); p != "/local/domain/7" || err != nil {
		t.Errorf("%q, %v", p, err)
	}
	s, err := c.Control("watches") // oxenstored's; the C daemon has "help"
	if err != nil {
		s, err = c.Control("help")
	}
	t.Logf("control: %d bytes, %v", len(s), err)
	must(t, w.Close())
}
