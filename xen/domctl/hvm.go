// SPDX-License-Identifier: Apache-2.0

package domctl

import (
	"bytes"
	"fmt"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/privcmd"
)

// maxHVMContext bounds what is passed to XEN_DOMCTL_sethvmcontext, which copies
// it into Xen's heap. A vCPU takes some KiB, and a domain has 128 at most.
const maxHVMContext = 8 << 20

// GetHVMContext saves the state of dom's vCPUs and emulated devices
// (XEN_DOMCTL_gethvmcontext, domctl.h). Xen pauses the domain meanwhile. Parse
// it with package hvmctx.
func (c *Client) GetHVMContext(dom abi.DomID) ([]byte, error) {
	const name = "gethvmcontext"
	r, err := domctl(c, name, abi.DomctlGetHVMContext, dom, &abi.DomctlHVMContext{})
	if err != nil {
		return nil, err
	}
	buf, err := c.h.Alloc(int(r.Size))
	if err != nil {
		return nil, err
	}
	defer buf.Free()
	r, err = domctl(c, name, abi.DomctlGetHVMContext, dom, &abi.DomctlHVMContext{Size: r.Size, Buffer: buf.Addr()})
	if err != nil {
		return nil, err
	}
	if int(r.Size) > len(buf.Bytes()) {
		return nil, fmt.Errorf("domctl %s of %s: Xen claims to have written %d bytes to a buffer of %d",
			name, dom, r.Size, len(buf.Bytes()))
	}
	return bytes.Clone(buf.Bytes()[:r.Size]), nil
}

// SetHVMContext restores a state saved by GetHVMContext. Xen checks all of it
// before it changes anything (hvm_load(), xen/arch/x86/hvm/save.c).
func (c *Client) SetHVMContext(dom abi.DomID, context []byte) error {
	const name = "sethvmcontext"
	if len(context) == 0 || len(context) > maxHVMContext {
		return fmt.Errorf("domctl %s of %s: a context of %d bytes", name, dom, len(context))
	}
	buf, err := c.h.Alloc(len(context))
	if err != nil {
		return err
	}
	defer buf.Free()
	copy(buf.Bytes(), context)
	_, err = domctl(c, name, abi.DomctlSetHVMContext, dom,
		&abi.DomctlHVMContext{Size: uint32(len(context)), Buffer: buf.Addr()})
	return err
}

// GetHVMParam reads an abi.HVMParam* (HVMOP_get_param, hvm/hvm_op.h).
func (c *Client) GetHVMParam(dom abi.DomID, index uint32) (uint64, error) {
	_, r, errno := call(c, abi.HypervisorHVMOp, abi.HVMOpGetParam, abi.HVMParam{DomID: dom, Index: index})
	if errno != 0 {
		return 0, c.err(fmt.Sprintf("HVMOP_get_param %d", index), dom, errno)
	}
	return r.Value, nil
}

// ShadowStats counts since the last clean.
type ShadowStats struct {
	Faults, Dirty uint32
}

// EnableLogDirty starts recording the pages that dom dirties
// (XEN_DOMCTL_shadow_op).
func (c *Client) EnableLogDirty(dom abi.DomID) error {
	_, err := domctl(c, "shadow_op enable_logdirty", abi.DomctlShadowOp, dom,
		&abi.DomctlShadowOpArgs{Op: abi.ShadowOpEnableLogDirty})
	return err
}

// DisableLogDirty stops it.
func (c *Client) DisableLogDirty(dom abi.DomID) error {
	_, err := domctl(c, "shadow_op off", abi.DomctlShadowOp, dom, &abi.DomctlShadowOpArgs{Op: abi.ShadowOpOff})
	return err
}

// DirtyBitmap returns one bit for each of dom's first pages gfns, least
// significant bit first, set if the page was dirtied since the last clean. With
// clean, recording starts anew.
func (c *Client) DirtyBitmap(dom abi.DomID, pages uint64, clean bool) ([]byte, ShadowStats, error) {
	name, op := "shadow_op peek", uint32(abi.ShadowOpPeek)
	if clean {
		name, op = "shadow_op clean", abi.ShadowOpClean
	}
	if pages == 0 || pages > 1<<36 {
		return nil, ShadowStats{}, fmt.Errorf("domctl %s of %s: a bitmap of %d pages", name, dom, pages)
	}
	// Xen writes whole words: round up to 64 pages.
	buf, err := c.h.Alloc(int((pages + 63) / 64 * 8))
	if err != nil {
		return nil, ShadowStats{}, err
	}
	defer buf.Free()
	r, err := domctl(c, name, abi.DomctlShadowOp, dom,
		&abi.DomctlShadowOpArgs{Op: op, DirtyBitmap: buf.Addr(), Pages: pages})
	if err != nil {
		return nil, ShadowStats{}, err
	}
	return bytes.Clone(buf.Bytes()[:(pages+7)/8]), ShadowStats{Faults: r.FaultCount, Dirty: r.DirtyCount}, nil
}

// gfnBatch is how many gfns are handed to Xen at a time: one kept buffer's worth.
const gfnBatch = 8192

// withGFNs calls f for batches of gfns copied to hypercall memory.
func (c *Client) withGFNs(gfns []abi.GFN, f func(addr uint64, batch []abi.GFN) error) error {
	buf, err := c.h.Alloc(min(len(gfns), gfnBatch) * 8)
	if err != nil {
		return err
	}
	defer buf.Free()
	for len(gfns) > 0 {
		n := min(len(gfns), gfnBatch)
		copy(privcmd.Slice[abi.GFN](buf.Bytes(), n), gfns[:n])
		if err := f(buf.Addr(), gfns[:n]); err != nil {
			return err
		}
		gfns = gfns[n:]
	}
	return nil
}
