// SPDX-License-Identifier: Apache-2.0

//go:build !broken_i7

package stream

// epochWhole is I7: an epoch counts only when all of it has arrived and its
// checksum holds.
func epochWhole(got, want tally) error {
	if got.crc != want.crc {
		return corruptf("CRC32C of the epoch is %#08x, computed %#08x", want.crc, got.crc)
	}
	if got != want {
		return corruptf("epoch announces %d pages, %d zeros, %d holes, lines of %d pages in %d records, found %d, %d, %d, %d in %d",
			want.pages, want.zeros, want.holes, want.lines, want.records, got.pages, got.zeros, got.holes, got.lines, got.records)
	}
	return nil
}
