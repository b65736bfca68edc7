// SPDX-License-Identifier: Apache-2.0

package image

import (
	"encoding/binary"
	"testing"
)

func TestKernelPayload(t *testing.T) {
	image := make([]byte, 0x2000)
	copy(image[0x202:], "HdrS")
	image[0x1f1] = 3
	binary.LittleEndian.PutUint32(image[0x248:], 16)
	binary.LittleEndian.PutUint32(image[0x24c:], 20)
	copy(image[2048+16:], "\x28\xb5\x2f\xfdtwelve octetsSIZE")
	got, err := kernelPayload(image)
	if err != nil || string(got) != "\x28\xb5\x2f\xfdtwelve octet" {
		t.Fatalf("got %q, %v", got, err)
	}
	for what, spoil := range map[string]func(b []byte) []byte{
		"short":             func(b []byte) []byte { return b[:0x24f] },
		"no bzImage":        func(b []byte) []byte { b[0x202] = 0; return b },
		"beyond the end":    func(b []byte) []byte { binary.LittleEndian.PutUint32(b[0x248:], 0xfffffff0); return b },
		"nothing":           func(b []byte) []byte { binary.LittleEndian.PutUint32(b[0x24c:], 4); return b },
		"other compression": func(b []byte) []byte { b[2048+16] = 0x1f; return b },
	} {
		if got, err := kernelPayload(spoil(append([]byte(nil), image...))); err == nil {
			t.Errorf("%s: got %q, want an error", what, got)
		}
	}
}
