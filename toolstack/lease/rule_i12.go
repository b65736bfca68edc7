// SPDX-License-Identifier: Apache-2.0

//go:build !broken_i12

package lease

import "fmt"

// MayAck is the first half of I12: once the last epoch has been chosen, no
// other one is acknowledged.
func MayAck(chosen bool) bool { return !chosen }

// Choose is the second half of I12: the epoch activated is the newest one
// acknowledged, of the generation on disk, and its image is whole.
func Choose(img Image, rec Record) (uint64, error) {
	switch {
	case rec.Phase == Copying:
		return 0, fmt.Errorf("it was not yet protected: the first copy, generation %d, had not ended", rec.Generation)
	case rec.Phase != Protecting:
		return 0, fmt.Errorf("generation %d is %q on disk: there is no image to activate", rec.Generation, rec.Phase)
	case !img.Whole:
		return 0, fmt.Errorf("no complete image of generation %d: it was lost when this daemon restarted or the shell failed", rec.Generation)
	case img.Generation != rec.Generation:
		return 0, fmt.Errorf("image of generation %d, but generation %d is on disk", img.Generation, rec.Generation)
	}
	return img.Acked, nil
}
