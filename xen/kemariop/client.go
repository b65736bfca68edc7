// SPDX-License-Identifier: Apache-2.0

package kemariop

import (
	"fmt"
	"sync"
	"syscall"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/privcmd"
)

// Client issues the operations for one domain. Its methods may be called
// concurrently; they are serialised. Sync, Release, Tap, Deliver and Status
// allocate nothing when they succeed.
type Client struct {
	h   *privcmd.Handle
	dom abi.DomID
	mu  sync.Mutex // protects op
	op  *privcmd.Buffer
}

// New returns a Client for dom. It does not touch the domain.
func New(h *privcmd.Handle, dom abi.DomID) (*Client, error) {
	op, err := h.Alloc(abi.PageSize)
	if err != nil {
		return nil, err
	}
	return &Client{h: h, dom: dom, op: op}, nil
}

// Domain returns the domain.
func (c *Client) Domain() abi.DomID { return c.dom }

// Close releases the client's memory. It does not change the domain.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.op.Free()
}

// unionOffset is the offset of u in struct xen_domctl; argsOffset that of u in
// the struct xen_domctl_kemari_op which is laid over it.
const (
	unionOffset = 16
	argsOffset  = unionOffset + 8
)

// prepare lays an empty argument over the op page. c.mu is held.
func (c *Client) prepare(op, flags uint32) {
	d := privcmd.Struct[abi.Domctl](c.op)
	*d = abi.Domctl{Cmd: DomctlKemariOp, InterfaceVersion: abi.DomctlInterfaceVersion, Domain: c.dom}
	k := privcmd.StructAt[domctlKemariOp](c.op.Bytes()[unionOffset:])
	k.Op, k.Flags = op, flags
}

func args[T any](c *Client) *T { return privcmd.StructAt[T](c.op.Bytes()[argsOffset:]) }

func (c *Client) issue(op uint32) error {
	if _, errno := c.h.Call(abi.HypervisorDomctl, c.op.Addr()); errno != 0 {
		return newError(op, c.dom, errno)
	}
	return nil
}

// EnableParams are the arguments of Enable. DirtyMax and DirtyMark are for
// RolePrimary: the entries of each half of the dirty list, and how many in the
// open half trigger a sync; 0 < DirtyMark <= DirtyMax.
type EnableParams struct {
	Role      Role
	DirtyMax  uint32
	DirtyMark uint32
}

// Status is the state of a domain.
type Status struct {
	Version   uint32
	Role      Role
	State     uint32   // State*
	Port      abi.Port // notification port, to be bound by the caller
	NrFrames  uint32   // size of the shared buffer
	DirtyMax  uint32
	DirtyMark uint32
}

// Is reports whether all of the given State bits are set.
func (s Status) Is(state uint32) bool { return s.State&state == state }

func statusOf(a *statusArgs) Status {
	return Status{Version: a.Version, Role: a.Role, State: a.State, Port: a.Port,
		NrFrames: a.NrFrames, DirtyMax: a.DirtyMax, DirtyMark: a.DirtyMark}
}

// Enable taps the domain (primary) or parks it (secondary).
func (c *Client) Enable(p EnableParams) (Status, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.prepare(opEnable, 0)
	*args[enableArgs](c) = enableArgs{Version: InterfaceVersion, Role: p.Role, DirtyMax: p.DirtyMax, DirtyMark: p.DirtyMark}
	if err := c.issue(opEnable); err != nil {
		return Status{}, err
	}
	return statusOf(args[statusArgs](c)), nil
}

// Disable delivers all held and parked events, undoes the pause, and gives back
// log-dirty mode. Output leaves without having been synchronised: the caller
// has made certain that the copy can never be activated.
func (c *Client) Disable() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.prepare(opDisable, 0)
	return c.issue(opDisable)
}

// Tap sets the mode of one port of the domain.
func (c *Client) Tap(port abi.Port, mode TapMode) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.prepare(opTap, 0)
	*args[tapArgs](c) = tapArgs{Port: port, Mode: mode}
	return c.issue(opTap)
}

// Sync pauses all vCPUs and parks the events sent to the domain. With harvest
// it also closes the dirty list and writes the state records, and returns what
// it found; without, the result is empty.
//
// EAGAIN (errors.Is): a processor start-up is under way; Xen has let the domain
// run on, with its output still held: try again.
func (c *Client) Sync(harvest bool) (SyncResult, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var flags uint32
	if harvest {
		flags = syncHarvest
	}
	c.prepare(opSync, flags)
	if err := c.issue(opSync); err != nil {
		return SyncResult{}, err
	}
	if !harvest {
		return SyncResult{}, nil
	}
	return *args[SyncResult](c), nil
}

// Release lets go what flags say. epoch is that of the last Sync.
func (c *Client) Release(epoch uint64, flags ReleaseFlags) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.prepare(opRelease, uint32(flags))
	args[releaseArgs](c).Epoch = epoch
	return c.issue(opRelease)
}

// Deliver sends an event on a port as if the domain had, whatever the port's
// mode.
func (c *Client) Deliver(port abi.Port) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.prepare(opDeliver, 0)
	args[tapArgs](c).Port = port
	return c.issue(opDeliver)
}

// Hot names pages of a primary that it dirties nearly always, in ascending order:
// from the next harvest on these are not write protected, and stand on the list of
// each harvest after it, whether dirtied or not. It replaces those named before.
// Xen takes HotMax at most, and fewer than trigger a sync (E2BIG).
func (c *Client) Hot(gfns []abi.GFN) error { return c.name(opHot, gfns, HotMax) }

// Warm names pages of a primary that it dirties together with those beside them, in
// ascending order: when a vCPU writes to any page that is write protected, those named
// of the same aligned block of Near become writable and come onto the list with it. It
// replaces those named before. Xen takes WarmMax at most (E2BIG).
func (c *Client) Warm(gfns []abi.GFN) error { return c.name(opWarm, gfns, WarmMax) }

func (c *Client) name(op uint32, gfns []abi.GFN, most int) error {
	if len(gfns) > most {
		return newError(op, c.dom, syscall.E2BIG)
	}
	var a gfnArgs
	if len(gfns) > 0 {
		buf, err := c.h.Alloc(len(gfns) * 8)
		if err != nil {
			return err
		}
		defer buf.Free()
		words := privcmd.Slice[uint64](buf.Bytes(), len(gfns))
		for i, gfn := range gfns {
			words[i] = uint64(gfn)
		}
		a = gfnArgs{GFNs: buf.Addr(), Nr: uint32(len(gfns))}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.prepare(op, 0)
	*args[gfnArgs](c) = a
	return c.issue(op)
}

// SetState restores records (see State.Encode) into a secondary whose HVM
// context has been set. Once only: a domain for which it failed has to be
// destroyed.
func (c *Client) SetState(records []byte) error {
	if len(records) == 0 || len(records) > StateMax {
		return fmt.Errorf("kemari set_state of %s: %d bytes of records, the limit is %d", c.dom, len(records), StateMax)
	}
	buf, err := c.h.Alloc(len(records))
	if err != nil {
		return err
	}
	defer buf.Free()
	copy(buf.Bytes(), records)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.prepare(opSetState, 0)
	*args[stateArgs](c) = stateArgs{Buffer: buf.Addr(), Size: uint32(len(records))}
	return c.issue(opSetState)
}

// Resume turns a secondary after SetState into an ordinary, running domain.
func (c *Client) Resume() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.prepare(opResume, 0)
	return c.issue(opResume)
}

// Status returns the state of any domain, enabled or not. Before the first use
// of a host it tells whether the hypervisor has the patch: the error then
// matches ErrUnsupported or ErrVersion.
func (c *Client) Status() (Status, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.prepare(opStatus, 0)
	if err := c.issue(opStatus); err != nil {
		return Status{}, err
	}
	s := statusOf(args[statusArgs](c))
	if s.Version != InterfaceVersion {
		e := newError(opStatus, c.dom, syscall.EACCES)
		e.Version = s.Version
		return s, e
	}
	return s, nil
}
