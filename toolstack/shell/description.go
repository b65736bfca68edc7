// SPDX-License-Identifier: Apache-2.0

package shell

import (
	"encoding/json"
	"fmt"

	"github.com/kemari-ft/kemari/toolstack/shell/xlstream"
	"github.com/kemari-ft/kemari/xen/abi"
)

// Description is what the primary says of a guest so that the secondary can
// make a shell for it: the opaque part of the stream's SHELL record.
type Description struct {
	Config     json.RawMessage // libxl's own configuration of the guest
	DomID      abi.DomID
	XenMajor   uint32
	XenMinor   uint32
	RAM        []xlstream.Range
	TSC        xlstream.TSCInfo
	Params     []xlstream.HVMParam
	HVMContext []byte
}

// Param returns the value of a parameter, 0 if it is not set.
func (d *Description) Param(index uint32) uint64 {
	for _, p := range d.Params {
		if p.Index == index {
			return p.Value
		}
	}
	return 0
}

// Encode encodes the description.
func (d *Description) Encode() ([]byte, error) { return json.Marshal(d) }

// DecodeDescription decodes and judges what a peer has sent.
func DecodeDescription(b []byte) (*Description, *xlstream.Guest, error) {
	var d Description
	if err := json.Unmarshal(b, &d); err != nil {
		return nil, nil, fmt.Errorf("description of the guest: %w", err)
	}
	cfg, err := xlstream.ParseConfig(d.Config)
	if err != nil {
		return nil, nil, fmt.Errorf("description of the guest: %w", err)
	}
	return &d, &xlstream.Guest{
		Config: cfg, DomID: d.DomID,
		XenMajor: d.XenMajor, XenMinor: d.XenMinor,
		RAM: d.RAM, TSC: d.TSC, Params: d.Params, HVMContext: d.HVMContext,
	}, nil
}
