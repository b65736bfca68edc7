// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
)

// unpackKernel makes the ELF file that a vmlinuz holds. Emulated processors take
// seconds for it each time that a guest is created or a host boots.
func unpackKernel(ctx context.Context, vmlinuz, vmlinux string) error {
	b, err := os.ReadFile(vmlinuz)
	if err != nil {
		return err
	}
	packed, err := kernelPayload(b)
	if err != nil {
		return fmt.Errorf("%s: %w", vmlinuz, err)
	}
	tmp := vmlinux + ".zst"
	defer os.Remove(tmp)
	if err := os.WriteFile(tmp, packed, 0o644); err != nil {
		return err
	}
	_, err = run(ctx, "", "zstd", "-d", "-q", "-o", vmlinux, tmp)
	return err
}

// kernelPayload finds the compressed kernel in a bzImage: see "The Linux/x86 Boot
// Protocol", Documentation/arch/x86/boot.rst.
func kernelPayload(b []byte) ([]byte, error) {
	const (
		setupSects    = 0x1f1
		header        = 0x202
		payloadOffset = 0x248
		payloadLength = 0x24c
		end           = 0x250
	)
	if len(b) < end || string(b[header:][:4]) != "HdrS" {
		return nil, errors.New("not a bzImage")
	}
	sects := uint64(b[setupSects])
	if sects == 0 {
		sects = 4
	}
	le := binary.LittleEndian
	from := (sects+1)*512 + uint64(le.Uint32(b[payloadOffset:]))
	to := from + uint64(le.Uint32(b[payloadLength:]))
	// The size of the kernel follows, within the payload: scripts/Makefile.lib.
	if to > uint64(len(b)) || to < from+8 {
		return nil, errors.New("its payload is not in the file")
	}
	payload := b[from : to-4]
	if !bytes.HasPrefix(payload, []byte{0x28, 0xb5, 0x2f, 0xfd}) {
		return nil, errors.New("its payload is not compressed by zstd")
	}
	return payload, nil
}
