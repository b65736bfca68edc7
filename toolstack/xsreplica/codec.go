// SPDX-License-Identifier: Apache-2.0

package xsreplica

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/xenstore"
)

// The encoding of a State, all numbers little endian:
//
//	magic "KXS1", domid u16, nodes u16, watches u16
//	node:  path u16+bytes, value u16+bytes, perms u8, each access u8, domid u16
//	watch: path u16+bytes, token u16+bytes
//
// Nodes ascend strictly by path, so that each occurs once.
const stateMagic = "KXS1"

// maxState bounds an encoded State.
const maxState = 16 << 20

var errShort = errors.New("truncated")

// Encode encodes the state of a domain.
func (s *State) Encode(dom abi.DomID) ([]byte, error) {
	if err := s.check(dom); err != nil {
		return nil, fmt.Errorf("xenstore state of domain %d: %w", uint16(dom), content{err})
	}
	le := binary.LittleEndian
	b := []byte(stateMagic)
	b = le.AppendUint16(b, uint16(dom))
	b = le.AppendUint16(b, uint16(len(s.Nodes)))
	b = le.AppendUint16(b, uint16(len(s.Watches)))
	for _, n := range s.Nodes {
		b = appendString(appendString(b, n.Path), n.Value)
		b = append(b, byte(len(n.Perms)))
		for _, p := range n.Perms {
			b = append(b, byte(p.Access))
			b = le.AppendUint16(b, uint16(p.Dom))
		}
	}
	for _, w := range s.Watches {
		b = appendString(appendString(b, w.Path), w.Token)
	}
	if len(b) > maxState {
		return nil, fmt.Errorf("xenstore state of domain %d: %w", uint16(dom), content{fmt.Errorf("%d bytes, at most %d", len(b), maxState)})
	}
	return b, nil
}

func appendString(b []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint16(b, uint16(len(s))), s...)
}

// check holds a State against the allow-list and the limits.
func (s *State) check(dom abi.DomID) error {
	if len(s.Nodes) > maxNodes || len(s.Watches) > maxWatches {
		return fmt.Errorf("%d nodes and %d watches; at most %d and %d", len(s.Nodes), len(s.Watches), maxNodes, maxWatches)
	}
	for i := range s.Nodes {
		if i > 0 && s.Nodes[i].Path <= s.Nodes[i-1].Path {
			return fmt.Errorf("node %.100q is out of order", s.Nodes[i].Path)
		}
		if err := checkNode(&s.Nodes[i], dom); err != nil {
			return err
		}
	}
	seen := map[Watch]bool{}
	for _, w := range s.Watches {
		if err := checkWatch(w); err != nil {
			return err
		}
		if seen[w] {
			return fmt.Errorf("watch %s %s occurs twice", w.Path, w.Token)
		}
		seen[w] = true
	}
	return nil
}

// Decode decodes and checks the state of domain dom, which the peer sent.
func Decode(b []byte, dom abi.DomID) (*State, error) {
	s, err := decode(b, dom)
	if err == nil {
		err = s.check(dom)
	}
	if err != nil {
		return nil, fmt.Errorf("xenstore state of domain %d: %w", uint16(dom), err)
	}
	return s, nil
}

func decode(b []byte, dom abi.DomID) (*State, error) {
	d := &decoder{b: b}
	if len(b) > maxState {
		return nil, fmt.Errorf("%d bytes, at most %d", len(b), maxState)
	}
	if magic := d.take(len(stateMagic)); string(magic) != stateMagic {
		return nil, fmt.Errorf("begins with % x, not %q", magic, stateMagic)
	}
	if got := abi.DomID(d.u16()); got != dom {
		return nil, fmt.Errorf("is that of domain %d", uint16(got))
	}
	nodes, watches := int(d.u16()), int(d.u16())
	s := &State{}
	for i := 0; i < nodes && !d.short; i++ {
		n := Node{Path: d.str(), Value: d.str()}
		for p := d.u8(); p > 0 && !d.short; p-- {
			n.Perms = append(n.Perms, xenstore.Perm{Access: xenstore.Access(d.u8()), Dom: abi.DomID(d.u16())})
		}
		s.Nodes = append(s.Nodes, n)
	}
	for i := 0; i < watches && !d.short; i++ {
		s.Watches = append(s.Watches, Watch{Path: d.str(), Token: d.str()})
	}
	if d.short {
		return nil, errShort
	}
	if len(d.b) != 0 {
		return nil, fmt.Errorf("%d bytes too many", len(d.b))
	}
	return s, nil
}

// decoder takes values from the front of b; short sticks once b was too short.
type decoder struct {
	b     []byte
	short bool
}

func (d *decoder) take(n int) []byte {
	if n > len(d.b) {
		d.short, d.b = true, nil
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) u8() byte {
	if v := d.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (d *decoder) u16() uint16 {
	if v := d.take(2); v != nil {
		return binary.LittleEndian.Uint16(v)
	}
	return 0
}

func (d *decoder) str() string { return string(d.take(int(d.u16()))) }
