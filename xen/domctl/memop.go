// SPDX-License-Identifier: Apache-2.0

package domctl

import (
	"errors"
	"fmt"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/privcmd"
)

// MaximumGPFN returns the highest gfn in use by dom (XENMEM_maximum_gpfn,
// memory.h). The kernel passes it through an int: domains beyond 8 TiB are out
// of reach.
func (c *Client) MaximumGPFN(dom abi.DomID) (abi.GFN, error) {
	r, _, errno := call(c, abi.HypervisorMemoryOp, abi.MemMaximumGPFN, abi.MemoryDomain{DomID: dom})
	if errno != 0 {
		return 0, c.err("XENMEM_maximum_gpfn", dom, errno)
	}
	if r < 0 {
		return 0, fmt.Errorf("XENMEM_maximum_gpfn of %s: %#x does not fit 31 bits", dom, uint32(r))
	}
	return abi.GFN(r), nil
}

// PopulatePhysmap puts fresh pages at exactly these gfns of dom
// (XENMEM_populate_physmap). If Xen stops early the error is a *PartialError.
func (c *Client) PopulatePhysmap(dom abi.DomID, gfns []abi.GFN) error {
	return c.reservation("XENMEM_populate_physmap", abi.MemPopulatePhysmap, dom, gfns)
}

// DecreaseReservation takes the pages at these gfns from dom and frees them
// (XENMEM_decrease_reservation). If Xen stops early the error is a
// *PartialError.
func (c *Client) DecreaseReservation(dom abi.DomID, gfns []abi.GFN) error {
	return c.reservation("XENMEM_decrease_reservation", abi.MemDecreaseReservation, dom, gfns)
}

func (c *Client) reservation(name string, op uint64, dom abi.DomID, gfns []abi.GFN) error {
	if len(gfns) == 0 {
		return nil
	}
	done := 0
	err := c.withGFNs(gfns, func(addr uint64, batch []abi.GFN) error {
		r, _, errno := call(c, abi.HypervisorMemoryOp, op,
			abi.MemoryReservation{ExtentStart: addr, NrExtents: uint64(len(batch)), DomID: dom})
		if errno != 0 {
			return c.err(name, dom, errno)
		}
		if r < 0 || int(r) > len(batch) {
			return fmt.Errorf("%s of %s: Xen claims %d of %d pages", name, dom, r, len(batch))
		}
		done += int(r)
		if int(r) < len(batch) {
			return &PartialError{Op: name, Dom: dom, Next: batch[r]}
		}
		return nil
	})
	var partial *PartialError
	if errors.As(err, &partial) {
		partial.Done, partial.Total = done, len(gfns)
	}
	return err
}

// AddToPhysmap makes page idx of space (abi.MapSpace*) appear at gfn of dom
// (XENMEM_add_to_physmap). A page that was at gfn is freed.
func (c *Client) AddToPhysmap(dom abi.DomID, space uint32, idx uint64, gfn abi.GFN) error {
	_, _, errno := call(c, abi.HypervisorMemoryOp, abi.MemAddToPhysmap,
		abi.AddToPhysmap{DomID: dom, Space: space, Idx: idx, GPFN: gfn})
	if errno != 0 {
		return c.err(fmt.Sprintf("XENMEM_add_to_physmap space %d index %d at gfn %#x", space, idx, uint64(gfn)), dom, errno)
	}
	return nil
}

// RemoveFromPhysmap removes what is at gfn of dom (XENMEM_remove_from_physmap).
func (c *Client) RemoveFromPhysmap(dom abi.DomID, gfn abi.GFN) error {
	_, _, errno := call(c, abi.HypervisorMemoryOp, abi.MemRemoveFromPhysmap, abi.RemoveFromPhysmap{DomID: dom, GPFN: gfn})
	if errno != 0 {
		return c.err(fmt.Sprintf("XENMEM_remove_from_physmap gfn %#x", uint64(gfn)), dom, errno)
	}
	return nil
}

// GrantTableSize returns the present and the greatest number of frames of
// dom's grant table (GNTTABOP_query_size, grant_table.h).
func (c *Client) GrantTableSize(dom abi.DomID) (nr, max uint32, err error) {
	const name = "GNTTABOP_query_size"
	_, r, errno := call(c, abi.HypervisorGrantTableOp, abi.GnttabOpQuerySize, abi.GnttabQuerySize{Dom: dom}, 1)
	if errno != 0 {
		return 0, 0, c.err(name, dom, errno)
	}
	if r.Status != abi.GNTSTOkay {
		return 0, 0, &GrantTableError{Op: name, Dom: dom, Status: r.Status}
	}
	return r.NrFrames, r.MaxNrFrames, nil
}

// GrantTableFrames returns the gfn at which dom sees each of the first nr
// frames of its grant table, abi.InvalidGFN where it has not mapped it
// (GNTTABOP_setup_table). The table grows to nr frames if it is smaller.
func (c *Client) GrantTableFrames(dom abi.DomID, nr uint32) ([]abi.GFN, error) {
	const name = "GNTTABOP_setup_table"
	if nr == 0 || nr > gfnBatch {
		return nil, fmt.Errorf("%s of %s: %d frames", name, dom, nr)
	}
	buf, err := c.h.Alloc(int(nr) * 8)
	if err != nil {
		return nil, err
	}
	defer buf.Free()
	_, r, errno := call(c, abi.HypervisorGrantTableOp, abi.GnttabOpSetupTable,
		abi.GnttabSetupTable{Dom: dom, NrFrames: nr, FrameList: buf.Addr()}, 1)
	if errno != 0 {
		return nil, c.err(name, dom, errno)
	}
	if r.Status != abi.GNTSTOkay {
		return nil, &GrantTableError{Op: name, Dom: dom, Status: r.Status}
	}
	gfns := make([]abi.GFN, nr)
	copy(gfns, privcmd.Slice[abi.GFN](buf.Bytes(), int(nr)))
	return gfns, nil
}

// EvtchnStatus is the state of one event channel port.
type EvtchnStatus struct {
	Status     uint32 // abi.EvtchnStat*
	VCPU       abi.VCPU
	RemoteDom  abi.DomID // unbound and interdomain
	RemotePort abi.Port  // interdomain
	VIRQ       uint32    // virq
}

// EvtchnStatus describes a port of dom (EVTCHNOP_status, event_channel.h).
// EINVAL: dom has no port of that number yet.
func (c *Client) EvtchnStatus(dom abi.DomID, port abi.Port) (EvtchnStatus, error) {
	_, r, errno := call(c, abi.HypervisorEventChannelOp, abi.EvtchnOpStatus, abi.EvtchnStatus{Dom: dom, Port: port})
	if errno != 0 {
		return EvtchnStatus{}, c.err(fmt.Sprintf("EVTCHNOP_status of port %d", port), dom, errno)
	}
	s := EvtchnStatus{Status: r.Status, VCPU: r.VCPU}
	switch r.Status {
	case abi.EvtchnStatUnbound:
		s.RemoteDom = abi.DomID(r.U[0])
	case abi.EvtchnStatInterdomain:
		s.RemoteDom, s.RemotePort = abi.DomID(r.U[0]), abi.Port(r.U[1])
	case abi.EvtchnStatVIRQ:
		s.VIRQ = r.U[0]
	}
	return s, nil
}

// AllocUnbound allocates a port in dom which remote may bind to
// (EVTCHNOP_alloc_unbound).
func (c *Client) AllocUnbound(dom, remote abi.DomID) (abi.Port, error) {
	_, r, errno := call(c, abi.HypervisorEventChannelOp, abi.EvtchnOpAllocUnbound,
		abi.EvtchnAllocUnbound{Dom: dom, RemoteDom: remote})
	if errno != 0 {
		return 0, c.err(fmt.Sprintf("EVTCHNOP_alloc_unbound for %s", remote), dom, errno)
	}
	return r.Port, nil
}
