// SPDX-License-Identifier: Apache-2.0

//go:build !broken_i10

package secondary

// tscTolerancePPM is by how much the TSC rates of two hosts may differ to count
// as equal. Calibration alone makes several kHz; NTP corrects far more.
const tscTolerancePPM = 250

// sameRate says whether a guest whose TSC had one rate may be given another
// one: its clocks must go on as they went (invariant I10).
func sameRate(guestkHz, hostkHz int64) bool {
	return max(guestkHz-hostkHz, hostkHz-guestkHz)*1_000_000 <= hostkHz*tscTolerancePPM
}
