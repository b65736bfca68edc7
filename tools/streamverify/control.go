// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"unicode"
	"unicode/utf8"
)

func (v *verifier) hello(r record) error {
	role, domid := u32(r.body, 4), u32(r.body, 56)
	vendor, version := bytes.TrimRight(r.body[64:76], "\x00"), r.body[80:]
	switch {
	case role != 1 && role != 2:
		return fmt.Errorf("role %d", role)
	case domid >= 0x7ff0:
		return fmt.Errorf("domid %d", domid)
	case int(u32(r.body, 76)) != len(version):
		return fmt.Errorf("Xen version of %d octets, %d follow", u32(r.body, 76), len(version))
	case !shown(vendor) || !shown(version):
		return errors.New("CPU vendor or Xen version cannot be printed")
	}
	v.role, v.generation = role, u64(r.body, 8)
	side := map[uint32]string{1: "primary", 2: "secondary"}[role]
	_, err := fmt.Fprintf(v.out, "%s: generation %d, epoch %d, domid %d, interface version %d, Xen %s on %s at %d kHz\n",
		side, v.generation, u64(r.body, 16), domid, u32(r.body, 0), version, vendor, u32(r.body, 60))
	return err
}

func (v *verifier) shell(r record) error {
	if v.shelled || v.lastEpoch != 0 {
		return errors.New("SHELL must come once, before the first epoch")
	}
	vcpus, pages := u32(r.body, 0), u64(r.body, 8)
	v.shelled, v.epochPages, v.maxGFN = true, uint64(u32(r.body, 4)), u64(r.body, 16)
	if vcpus == 0 || pages == 0 || v.epochPages == 0 {
		return fmt.Errorf("%d vCPUs, %d pages, %d pages an epoch", vcpus, pages, v.epochPages)
	}
	_, err := fmt.Fprintf(v.out, "guest: %d vCPUs, %d pages up to gfn %#x, at most %d an epoch, described in %d octets\n",
		vcpus, pages, v.maxGFN, v.epochPages, len(r.body)-24)
	return err
}

func (v *verifier) ack(r record) error {
	epoch := u64(r.body, 8)
	if epoch == 0 || v.lastAck != 0 && epoch != v.lastAck+1 {
		return fmt.Errorf("epoch %d after epoch %d", epoch, v.lastAck)
	}
	v.lastAck = epoch
	return nil
}

func (v *verifier) heartbeat(r record) error {
	if beat := u64(r.body, 8); beat <= v.lastBeat && v.lastBeat != 0 {
		return fmt.Errorf("sequence %d after %d", beat, v.lastBeat)
	}
	v.lastBeat = u64(r.body, 8)
	return nil
}

func (v *verifier) discarded(record) error { return nil }

// last takes the records after which a primary has no more to say.
func (v *verifier) last(r record) error {
	if g := u64(r.body, 0); g != v.generation {
		return fmt.Errorf("generation %d, HELLO said %d", g, v.generation)
	}
	v.closed = map[uint32]string{0x0e: "DISCARD", 0x10: "END", 0x11: "LET_GO"}[r.kind]
	switch r.kind {
	case 0x10:
		if why := u64(r.body, 8); why < 1 || why > 4 {
			return fmt.Errorf("reason and reserved field are %#x", why)
		}
	case 0x11:
		if k := u64(r.body, 8); k == 0 || (v.shelled || v.lastEpoch != 0) && k != v.lastEpoch {
			return fmt.Errorf("epoch %d, the last one was %d", k, v.lastEpoch)
		}
	}
	return nil
}

func (v *verifier) refuse(r record) error {
	v.closed = "REFUSE"
	n, flags, b := u32(r.body, 0), u32(r.body, 4), r.body[8:]
	if n == 0 || n > 64 {
		return fmt.Errorf("%d reasons", n)
	}
	if flags&^1 != 0 {
		return fmt.Errorf("flags are %#x", flags)
	}
	for i := range n {
		if len(b) < 8 {
			return fmt.Errorf("reason %d of %d is missing", i+1, n)
		}
		l := u64(b, 0)
		padded := (l + 7) / 8 * 8
		b = b[8:]
		if l > 1024 || padded > uint64(len(b)) || !shown(b[:l]) {
			return fmt.Errorf("reason %d has %d octets, or cannot be printed", i+1, l)
		}
		for _, octet := range b[l:padded] {
			if octet != 0 {
				return errors.New("padding is not zero")
			}
		}
		if _, err := fmt.Fprintf(v.out, "refused: %s\n", b[:l]); err != nil {
			return err
		}
		b = b[padded:]
	}
	if len(b) != 0 {
		return fmt.Errorf("%d octets follow the last reason", len(b))
	}
	return nil
}

// shown says whether a text may be printed, section 3.
func shown(b []byte) bool {
	return utf8.Valid(b) && bytes.IndexFunc(b, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}
