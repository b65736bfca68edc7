// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"syscall"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/kemariop"
	"github.com/kemari-ft/kemari/xen/privcmd"
)

// Numbers of kemari.h which package kemariop keeps to itself.
const (
	opEnable   = 0
	opDisable  = 1
	opTap      = 2
	opSync     = 3
	opRelease  = 4
	opDeliver  = 5
	opSetState = 6
	opResume   = 7
	opStatus   = 8
	opHot      = 9
	opWarm     = 10

	freeze  = 0
	harvest = 1

	out     = uint32(kemariop.ReleaseOut)
	unpause = uint32(kemariop.ReleaseUnpause)

	primary   = uint32(kemariop.RolePrimary)
	secondary = uint32(kemariop.RoleSecondary)

	maxDirty = 1 << 20 // KEMARI_DIRTY_MAX
)

// raw issues operations with arguments that package kemariop would not let
// pass. Its methods must not be called concurrently.
type raw struct {
	hc  *privcmd.Handle
	dom abi.DomID
	buf *privcmd.Buffer
}

func (t *try) raw(dom abi.DomID) *raw {
	buf, err := t.hc.Alloc(abi.PageSize)
	t.must(err)
	t.later(func() { buf.Free() })
	return &raw{t.hc, dom, buf}
}

// Offsets in struct xen_domctl and in the union of struct xen_domctl_kemari_op.
const (
	offOp    = 16
	offFlags = 20
	offArgs  = 24
)

// op issues one operation; args are the 32-bit words of u.
func (r *raw) op(op, flags uint32, args ...uint32) syscall.Errno {
	d := privcmd.Struct[abi.Domctl](r.buf)
	*d = abi.Domctl{Cmd: kemariop.DomctlKemariOp, InterfaceVersion: abi.DomctlInterfaceVersion, Domain: r.dom}
	b := r.buf.Bytes()
	binary.LittleEndian.PutUint32(b[offOp:], op)
	binary.LittleEndian.PutUint32(b[offFlags:], flags)
	for i, a := range args {
		binary.LittleEndian.PutUint32(b[offArgs+4*i:], a)
	}
	_, errno := r.hc.Call(abi.HypervisorDomctl, r.buf.Addr())
	return errno
}

func (r *raw) enable(role, dirtyMax, mark uint32) syscall.Errno {
	return r.op(opEnable, 0, kemariop.InterfaceVersion, role, dirtyMax, mark)
}

func (r *raw) disable() syscall.Errno { return r.op(opDisable, 0) }

// sync returns the epoch, too.
func (r *raw) sync(flags uint32) (uint64, syscall.Errno) {
	errno := r.op(opSync, flags)
	return binary.LittleEndian.Uint64(r.buf.Bytes()[offArgs:]), errno
}

func (r *raw) release(epoch uint64, flags uint32) syscall.Errno {
	return r.op(opRelease, flags, uint32(epoch), uint32(epoch>>32))
}

func (r *raw) setState(addr uint64, size, pad uint32) syscall.Errno {
	return r.op(opSetState, 0, uint32(addr), uint32(addr>>32), size, pad)
}

// name is one of opHot and opWarm.
func (r *raw) name(op uint32, addr uint64, nr, pad uint32) syscall.Errno {
	return r.op(op, 0, uint32(addr), uint32(addr>>32), nr, pad)
}

// records hands state records over.
func (t *try) records(g *guest, b []byte) syscall.Errno {
	buf, err := t.hc.Alloc(max(1, len(b)))
	t.must(err)
	defer buf.Free()
	copy(buf.Bytes(), b)
	return g.setState(buf.Addr(), uint32(len(b)), 0)
}

// state is the XEN_KEMARI_* bits of the status.
func (t *try) state(g *guest) uint32 {
	s, err := g.c.Status()
	t.must(err)
	return s.State
}

// primary enables a guest in the primary's role and maps the shared buffer.
func (t *try) primary(g *guest, dirtyMax, mark uint32) (kemariop.Status, *kemariop.Shared) {
	s, err := g.c.Enable(kemariop.EnableParams{Role: kemariop.RolePrimary, DirtyMax: dirtyMax, DirtyMark: mark})
	t.must(err)
	t.later(func() { g.disable() }) // it may be disabled or gone
	shared, err := g.c.MapShared(t.fm, s.NrFrames)
	t.must(err)
	t.later(func() { shared.Close() })
	return s, shared
}

// sync syncs with harvest, and does again what Xen asks to.
func (t *try) sync(g *guest) kemariop.SyncResult {
	for {
		r, err := g.c.Sync(true)
		if isErrno(err, syscall.EAGAIN) {
			continue
		}
		t.must(err)
		return r
	}
}

// resume releases everything after a sync.
func (t *try) resume(g *guest, r kemariop.SyncResult) {
	t.must(g.c.Release(r.Epoch, kemariop.ReleaseOut|kemariop.ReleaseUnpause))
}

// dirty lists what a sync found.
func (t *try) dirty(s *kemariop.Shared, r kemariop.SyncResult) []uint64 {
	d, err := s.Dirty(r.DirtyHalf, r.DirtyNr)
	t.must(err)
	return append([]uint64(nil), d...)
}
