// SPDX-License-Identifier: Apache-2.0

// Pagesum prints a sum of each page of a domain's memory, in dom0:
//
//	pagesum DOMID
//
// The first line tells what the domain is to Kemari, "role primary state 0x6
// epoch 7", then there is one line a page, "gfn sum". A page that Xen or dom0
// writes without logging, and that travels with the rings instead of with the
// memory, is marked "always". Where the lines of a frozen guest and of its shell
// differ, something was lost on the way.
package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/kemari-ft/kemari/toolstack/guestmem"
	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/domctl"
	"github.com/kemari-ft/kemari/xen/foreignmem"
	"github.com/kemari-ft/kemari/xen/kemariop"
	"github.com/kemari-ft/kemari/xen/privcmd"
	"github.com/kemari-ft/kemari/xen/xenstore"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: pagesum DOMID")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "pagesum:", err)
		os.Exit(1)
	}
}

func run(arg string) error {
	n, err := strconv.ParseUint(arg, 10, 15)
	if err != nil {
		return fmt.Errorf("%q is not a domid", arg)
	}
	dom := abi.DomID(n)
	hc, err := privcmd.Open()
	if err != nil {
		return err
	}
	ctl, err := domctl.New(hc)
	if err != nil {
		return err
	}
	fm, err := foreignmem.Open()
	if err != nil {
		return err
	}
	op, err := kemariop.New(hc, dom)
	if err != nil {
		return err
	}
	status, err := op.Status()
	if err != nil {
		return err
	}
	always := map[abi.GFN]bool{}
	for _, index := range []uint32{abi.HVMParamStorePFN, abi.HVMParamConsolePFN} {
		gfn, err := ctl.GetHVMParam(dom, index)
		if err != nil {
			return err
		}
		always[abi.GFN(gfn)] = true
	}
	var epoch uint64
	if status.Role == kemariop.RolePrimary {
		shared, err := op.MapShared(fm, status.NrFrames)
		if err != nil {
			return err
		}
		r := shared.LastSync()
		epoch = r.Epoch
		list, err := shared.Always(r.AlwaysNr)
		if err != nil {
			return err
		}
		for _, entry := range list {
			_, _, gfn := kemariop.AlwaysEntry(entry)
			always[gfn] = true
		}
		if err := addRings(fm, dom, always); err != nil {
			return err
		}
	}
	mem, err := guestmem.Map(fm, ctl, dom, false)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stdout)
	fmt.Fprintf(out, "role %v state %#x epoch %d\n", status.Role, status.State, epoch)
	for gfn, page := range mem.All() {
		mark := ""
		if always[gfn] {
			mark = " always"
		}
		fmt.Fprintf(out, "%x %x%s\n", gfn, sum(page), mark)
	}
	return errors.Join(out.Flush(), mem.Close())
}

// sum is FNV-1a over words: quick in an emulated machine.
func sum(page []byte) uint64 {
	h := uint64(0xcbf29ce484222325)
	for i := 0; i < len(page); i += 8 {
		h = (h ^ binary.LittleEndian.Uint64(page[i:])) * 0x100000001b3
		h ^= h >> 29
	}
	return h
}

// addRings finds the pages of the disks' rings, as the front ends granted them.
func addRings(fm *foreignmem.Handle, dom abi.DomID, always map[abi.GFN]bool) error {
	xs, err := xenstore.Dial("")
	if err != nil {
		return err
	}
	defer xs.Close()
	root := fmt.Sprintf("/local/domain/%d/device/vbd", uint16(dom))
	devices, err := xs.List(root)
	if err != nil {
		return nil // there are no disks
	}
	for _, d := range devices {
		dir := path.Join(root, d)
		keys, err := xs.List(dir)
		if err != nil {
			return err
		}
		for _, k := range keys {
			switch {
			case strings.HasPrefix(k, "ring-ref"):
				err = addRing(fm, xs, dom, path.Join(dir, k), always)
			case strings.HasPrefix(k, "queue-"):
				var refs []string
				refs, err = xs.List(path.Join(dir, k))
				for _, ref := range refs {
					if err == nil && strings.HasPrefix(ref, "ring-ref") {
						err = addRing(fm, xs, dom, path.Join(dir, k, ref), always)
					}
				}
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func addRing(fm *foreignmem.Handle, xs *xenstore.Client, dom abi.DomID, node string, always map[abi.GFN]bool) error {
	text, err := xs.Read(node)
	if err != nil {
		return err
	}
	ref, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return fmt.Errorf("%s: %w", node, err)
	}
	// struct grant_entry_v1: flags u16, domid u16, frame u32.
	const size, perFrame = 8, abi.PageSize / 8
	m, err := fm.MapResource(dom, abi.ResourceGrantTable, abi.ResourceGrantTableIDShared, 0, ref/perFrame+1, false)
	if err != nil {
		return err
	}
	entry := m.Page(int(ref / perFrame))[ref%perFrame*size:]
	always[abi.GFN(binary.LittleEndian.Uint32(entry[4:]))] = true
	return m.Close()
}
