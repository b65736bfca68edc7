// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"testing"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/domctl"
	"github.com/kemari-ft/kemari/xen/foreignmem"
	"github.com/kemari-ft/kemari/xen/gntdev"
	"github.com/kemari-ft/kemari/xen/hvmctx"
)

// guest opens the hypercall interface and pauses the guest for the test.
func guest(t *testing.T) (*domctl.Client, abi.DomID) {
	t.Helper()
	n, err := strconv.ParseUint(os.Getenv("XEN_TEST_DOMID"), 10, 15)
	if err != nil || n == 0 {
		t.Skip("XEN_TEST_DOMID names no guest")
	}
	c := open(t)
	dom := abi.DomID(n)
	must(t, c.Pause(dom))
	t.Cleanup(func() {
		if err := c.Unpause(dom); err != nil {
			t.Error(err)
		}
	})
	return c, dom
}

func TestGuestInfo(t *testing.T) {
	c, dom := guest(t)
	i, err := c.DomainInfo(dom)
	must(t, err)
	t.Logf("%+v", i)
	if !i.Is(abi.DomInfHVMGuest | abi.DomInfPaused) {
		t.Error("not a paused HVM or PVH domain")
	}
	max, err := c.MaximumGPFN(dom)
	must(t, err)
	tsc, err := c.GetTSCInfo(dom)
	must(t, err)
	pool, err := c.PagingMempoolSize(dom)
	must(t, err)
	t.Logf("highest gfn %#x, TSC %+v, paging pool %d bytes", uint64(max), tsc, pool)
	for port := abi.Port(1); port < 16; port++ {
		s, err := c.EvtchnStatus(dom, port)
		t.Logf("port %d: %+v, %v", port, s, err)
	}
}

func TestGuestHVMContext(t *testing.T) {
	c, dom := guest(t)
	b, err := c.GetHVMContext(dom)
	must(t, err)
	x, err := hvmctx.Parse(b)
	must(t, err)
	t.Logf("%d bytes, %+v, vCPUs %v", len(b), x.Header(), x.VCPUs())
	for _, r := range x.Records() {
		t.Logf("%-12s %d: %d bytes", r.TypeName(), r.Instance, len(r.Data))
	}
	for _, v := range x.VCPUs() {
		cpu, err := x.CPU(v)
		must(t, err)
		t.Logf("vCPU %d: TSC %d RIP %#x", v, cpu.TSC(), cpu.RIP())
	}
}

func TestGuestMemory(t *testing.T) {
	c, dom := guest(t)
	fm, err := foreignmem.Open()
	must(t, err)
	defer fm.Close()
	store, err := c.GetHVMParam(dom, abi.HVMParamStorePFN)
	must(t, err)
	max, err := c.MaximumGPFN(dom)
	must(t, err)
	good, hole := abi.GFN(store), max+0x1000

	m, err := fm.Map(dom, []abi.GFN{good, hole, good, hole, good}, false)
	must(t, err)
	defer m.Close()
	check := func(present ...bool) {
		t.Helper()
		var first []byte
		for i, want := range present {
			if m.Present(i) != want {
				t.Errorf("page %d: %v", i, m.Err(i))
			}
			if !m.Present(i) {
				if !errors.Is(m.Err(i), foreignmem.ErrHole) {
					t.Errorf("page %d: %v", i, m.Err(i))
				}
				continue
			}
			if first == nil {
				first = m.Page(i)
			} else if !bytes.Equal(first, m.Page(i)) {
				t.Errorf("page %d shows something else", i)
			}
		}
	}
	check(true, false, true, false, true)
	must(t, m.Remap(1, good)) // a hole in place
	check(true, true, true, false, true)
	must(t, m.Remap(2, hole)) // a present page becomes a hole
	check(true, true, false, false, true)
	must(t, m.Remap(2, good, good)) // two holes in different areas
	check(true, true, true, true, true)
	must(t, m.Remap(0, hole, good, hole))
	check(false, true, false, true, true)
	must(t, m.Remap(0, good, good, good, good, good))
	check(true, true, true, true, true)
}

func TestGuestGrants(t *testing.T) {
	c, dom := guest(t)
	fm, err := foreignmem.Open()
	must(t, err)
	defer fm.Close()
	nr, max, err := c.GrantTableSize(dom)
	must(t, err)
	gfns, err := c.GrantTableFrames(dom, nr)
	must(t, err)
	t.Logf("grant table: %d of %d frames, at %#x", nr, max, gfns)
	res, err := fm.MapResource(dom, abi.ResourceGrantTable, abi.ResourceGrantTableIDShared, 0, uint64(nr), false)
	must(t, err)
	defer res.Close()
	if gfns[0] != abi.InvalidGFN {
		m, err := fm.Map(dom, gfns[:1], false)
		must(t, err)
		defer m.Close()
		must(t, m.Err(0))
		if !bytes.Equal(m.Page(0), res.Page(0)) {
			t.Error("the frame shows something else through the physmap than as a resource")
		}
	}

	// The store page is granted under a reserved reference.
	store, err := c.GetHVMParam(dom, abi.HVMParamStorePFN)
	must(t, err)
	m, err := fm.Map(dom, []abi.GFN{abi.GFN(store)}, false)
	must(t, err)
	defer m.Close()
	gd, err := gntdev.Open()
	must(t, err)
	defer gd.Close()
	g, err := gd.Map(dom, []abi.GrantRef{abi.GnttabReservedXenstore}, false)
	must(t, err)
	if !bytes.Equal(g.Bytes(), m.Page(0)) {
		t.Error("the granted store page is not the one at STORE_PFN")
	}
	must(t, g.Close())
	buf := make([]byte, 1024)
	segs := []gntdev.CopySegment{
		{Ref: abi.GnttabReservedXenstore, Dom: dom, Offset: 1024, Local: buf},
		{Ref: 0xfffff, Dom: dom, Local: make([]byte, 16)},
	}
	err = gd.Copy(segs)
	var ge *gntdev.GrantError
	if !errors.As(err, &ge) || len(ge.Failed) != 1 || ge.Failed[0].Segment != 1 {
		t.Errorf("copy: %v", err)
	}
	t.Log(err)
	if !bytes.Equal(buf, m.Page(0)[1024:2048]) {
		t.Error("the copy differs from the page")
	}
}
