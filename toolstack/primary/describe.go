// SPDX-License-Identifier: Apache-2.0

package primary

import (
	"encoding/json"
	"fmt"

	"github.com/kemari-ft/kemari/toolstack/guestmem"
	"github.com/kemari-ft/kemari/toolstack/shell"
	"github.com/kemari-ft/kemari/toolstack/shell/xlstream"
	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/domctl"
)

// Describe says of a guest what its shell is made from. config is libxl's own
// configuration of it.
func Describe(ctl *domctl.Client, mem *guestmem.Memory, dom abi.DomID, config json.RawMessage) (*shell.Description, error) {
	d := &shell.Description{Config: config, DomID: dom}
	v, err := ctl.Version()
	if err != nil {
		return nil, err
	}
	d.XenMajor, d.XenMinor = uint32(v.Major), uint32(v.Minor)
	tsc, err := ctl.GetTSCInfo(dom)
	if err != nil {
		return nil, err
	}
	d.TSC = xlstream.TSCInfo{Mode: tsc.Mode, KHz: tsc.GTSCkHz, NSec: tsc.ElapsedNsec, Incarnation: tsc.Incarnation}
	for _, index := range xlstream.Params {
		value, err := ctl.GetHVMParam(dom, index)
		if err != nil {
			return nil, err
		}
		if value != 0 {
			d.Params = append(d.Params, xlstream.HVMParam{Index: index, Value: value})
		}
	}
	if d.HVMContext, err = ctl.GetHVMContext(dom); err != nil {
		return nil, err
	}
	special, err := xenPages(ctl, dom)
	if err != nil {
		return nil, err
	}
	for gfn := range mem.All() {
		if special[gfn] {
			continue
		}
		if n := len(d.RAM); n > 0 && d.RAM[n-1].First+abi.GFN(d.RAM[n-1].Count) == gfn {
			d.RAM[n-1].Count++
		} else {
			d.RAM = append(d.RAM, xlstream.Range{First: gfn, Count: 1})
		}
	}
	if len(d.RAM) == 0 {
		return nil, fmt.Errorf("%s has no memory", dom)
	}
	return d, nil
}

// xenPages finds the frames of the guest behind which there is no RAM, but
// Xen's own pages: they are put there by XENMEM_add_to_physmap.
func xenPages(ctl *domctl.Client, dom abi.DomID) (map[abi.GFN]bool, error) {
	info, err := ctl.DomainInfo(dom)
	if err != nil {
		return nil, err
	}
	nr, _, err := ctl.GrantTableSize(dom)
	if err != nil {
		return nil, err
	}
	grants, err := ctl.GrantTableFrames(dom, nr)
	if err != nil {
		return nil, err
	}
	pages := map[abi.GFN]bool{info.SharedInfoGFN: true}
	for _, gfn := range grants {
		pages[gfn] = true
	}
	return pages, nil
}
