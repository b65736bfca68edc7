// SPDX-License-Identifier: Apache-2.0

// Package domctl inspects and controls domains: the hypercalls domctl, sysctl,
// hvm_op, memory_op, grant_table_op, event_channel_op, sched_op and xen_version,
// as far as a toolstack in dom0 needs them. Each method is one hypercall (the
// ones that take lists issue several) and cites the header that defines it.
package domctl

import (
	"sync"
	"syscall"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/privcmd"
)

// Client issues hypercalls about domains. Its methods may be called
// concurrently; the hypercalls are serialised.
type Client struct {
	h  *privcmd.Handle
	mu sync.Mutex // protects op
	op *privcmd.Buffer
}

// New returns a Client which issues its hypercalls through h.
func New(h *privcmd.Handle) (*Client, error) {
	op, err := h.Alloc(abi.PageSize)
	if err != nil {
		return nil, err
	}
	return &Client{h: h, op: op}, nil
}

// Close releases the client's memory; h stays open.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.op.Free()
}

// domctl issues XEN_DOMCTL cmd for dom. T is the sub-command's member of the
// union; in may be nil. The result is what Xen left there.
func domctl[T any](c *Client, name string, cmd uint32, dom abi.DomID, in *T) (T, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	op := privcmd.Struct[abi.Domctl](c.op)
	*op = abi.Domctl{Cmd: cmd, InterfaceVersion: abi.DomctlInterfaceVersion, Domain: dom}
	u := privcmd.StructAt[T](c.op.Bytes()[unionOffset:])
	if in != nil {
		*u = *in
	}
	_, errno := c.h.Call(abi.HypervisorDomctl, c.op.Addr())
	return *u, c.err("domctl "+name, dom, errno)
}

// unionOffset is the offset of u in struct xen_domctl.
const unionOffset = 16

// none is the argument of domctls that take none.
type none struct{ _ uint64 }

// call issues hypercall op(cmd, arg, extra...) with arg laid over the op page,
// and returns what Xen left there.
func call[T any](c *Client, op, cmd uint64, arg T, extra ...uint64) (int64, T, syscall.Errno) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := privcmd.Struct[T](c.op)
	*p = arg
	args := append([]uint64{cmd, c.op.Addr()}, extra...)
	r, errno := c.h.Call(op, args...)
	return r, *p, errno
}

// Pause pauses dom and waits until its vCPUs are off. Pauses nest (domctl.h).
func (c *Client) Pause(dom abi.DomID) error {
	_, err := domctl[none](c, "pausedomain", abi.DomctlPauseDomain, dom, nil)
	return err
}

// Unpause undoes one Pause.
func (c *Client) Unpause(dom abi.DomID) error {
	_, err := domctl[none](c, "unpausedomain", abi.DomctlUnpauseDomain, dom, nil)
	return err
}

// Destroy kills dom and frees its memory.
func (c *Client) Destroy(dom abi.DomID) error {
	_, err := domctl[none](c, "destroydomain", abi.DomctlDestroyDomain, dom, nil)
	return err
}

// SendTrigger injects an NMI, reset, power or sleep event (abi.Trigger*).
func (c *Client) SendTrigger(dom abi.DomID, trigger uint32, vcpu abi.VCPU) error {
	_, err := domctl(c, "sendtrigger", abi.DomctlSendTrigger, dom,
		&abi.DomctlSendTriggerArgs{Trigger: trigger, VCPU: vcpu})
	return err
}

// RemoteShutdown marks dom as shut down for reason (abi.Shutdown*), as if the
// guest had asked for it (SCHEDOP_remote_shutdown, sched.h).
func (c *Client) RemoteShutdown(dom abi.DomID, reason uint32) error {
	_, _, errno := call(c, abi.HypervisorSchedOp, abi.SchedOpRemoteShutdown,
		abi.SchedRemoteShutdown{DomainID: dom, Reason: reason})
	return c.err("SCHEDOP_remote_shutdown", dom, errno)
}

// TSCInfo is how Xen presents the time stamp counter to a domain.
type TSCInfo struct {
	Mode        uint32 // abi.TSCMode*
	GTSCkHz     uint32
	Incarnation uint32
	ElapsedNsec uint64
}

// GetTSCInfo reads the TSC mode and frequency of dom.
func (c *Client) GetTSCInfo(dom abi.DomID) (TSCInfo, error) {
	t, err := domctl[abi.DomctlTSCInfo](c, "gettscinfo", abi.DomctlGetTSCInfo, dom, nil)
	return TSCInfo{Mode: t.TSCMode, GTSCkHz: t.GTSCkHz, Incarnation: t.Incarnation, ElapsedNsec: t.ElapsedNsec}, err
}

// SetTSCInfo sets the TSC mode and frequency of dom. Xen adds one to the
// incarnation (tsc_set_info(), xen/arch/x86/time.c), so pass one less than the
// guest shall see.
func (c *Client) SetTSCInfo(dom abi.DomID, t TSCInfo) error {
	_, err := domctl(c, "settscinfo", abi.DomctlSetTSCInfo, dom,
		&abi.DomctlTSCInfo{TSCMode: t.Mode, GTSCkHz: t.GTSCkHz, Incarnation: t.Incarnation, ElapsedNsec: t.ElapsedNsec})
	return err
}

// PagingMempoolSize returns the bytes which dom's p2m and shadow may use.
func (c *Client) PagingMempoolSize(dom abi.DomID) (uint64, error) {
	p, err := domctl[abi.DomctlPagingMempool](c, "get_paging_mempool_size", abi.DomctlGetPagingMempoolSize, dom, nil)
	return p.Size, err
}
