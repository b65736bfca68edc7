// SPDX-License-Identifier: Apache-2.0

package lease

// Proof is what a host has in hand about its peer.
type Proof uint8

const (
	// NoProof is mere silence, or a suspicion.
	NoProof Proof = iota
	// Fenced: the fence command reported success against the peer.
	Fenced
	// LetGo: the primary has destroyed the guest after the last epoch, and
	// said so (LET_GO).
	LetGo
	// LeaseExpired: the primary's lease has run out.  It stops a guest's
	// memory and packets, but not a write that already queues in a frozen
	// host.
	LeaseExpired
	// Discarded: the secondary answered that it has discarded the
	// generation (DISCARDED).
	Discarded
	// NeverWhole: the end of the generation's first epoch was never sent,
	// so that the secondary has nothing it could activate.
	NeverWhole
)

func (p Proof) String() string {
	names := [...]string{"no proof", "peer fenced", "peer let go", "lease expired", "generation discarded", "no image was ever complete"}
	if int(p) < len(names) {
		return names[p]
	}
	return "unknown proof"
}

// Image is what a secondary holds of a guest.
type Image struct {
	Generation uint64
	Acked      uint64 // newest epoch acknowledged
	Applied    uint64 // newest epoch in the shell, or being the shell
	Whole      bool   // a complete image lies in this daemon's memory and shell
}
