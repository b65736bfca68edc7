// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"github.com/google/uuid"
)

// Role is a host's part in the protection of one guest.
type Role string

// The two roles.
const (
	Primary   Role = "primary"
	Secondary Role = "secondary"
)

// Phase is how far a protection has come, as it must be known after a restart.
type Phase string

const (
	// Copying: the first epoch of the generation has not been sent whole.
	Copying Phase = "copying"
	// Protecting: the secondary may hold a complete image.
	Protecting Phase = "protecting"
	// Unprotected: the primary left protection, with proof.
	Unprotected Phase = "unprotected"
	// HandedOver: the primary destroyed the guest in favour of the secondary.
	HandedOver Phase = "handed-over"
	// Gone: the secondary discarded the generation.
	Gone Phase = "discarded"
	// Running: the secondary activated the guest.
	Running Phase = "running"
	// Ended: the guest itself ended.
	Ended Phase = "ended"
)

// Record is what both hosts keep on disk of every guest that was ever
// protected.  It must reach the disk before anything that depends on it leaves
// the host.
type Record struct {
	Guest      uuid.UUID `json:"guest"`
	Role       Role      `json:"role"`
	Generation uint64    `json:"generation"`
	Phase      Phase     `json:"phase"`
	// Peer is the URI at which the primary reaches the secondary of this generation.
	Peer string `json:"peer,omitempty"`
	// Epoch is the epoch at which the guest was handed over or activated.
	Epoch uint64 `json:"epoch,omitempty"`
}

// recordVersion is the version of the encoding.
const recordVersion = 1

// maxRecord bounds what Decode reads.
const maxRecord = 4096

type versioned struct {
	Version int `json:"version"`
	Record
}

// Encode writes the record as JSON, so that an operator can read it.
func (r Record) Encode() ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(versioned{recordVersion, r}, "", "  ")
	return append(b, '\n'), err
}

// Decode reads what Encode wrote, and nothing else: a record that is not
// understood must not be taken for a weaker one.
func Decode(b []byte) (Record, error) {
	var v versioned
	if len(b) > maxRecord {
		return Record{}, fmt.Errorf("generation record of %d octets, at most %d", len(b), maxRecord)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		return Record{}, fmt.Errorf("generation record is not readable: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return Record{}, fmt.Errorf("generation record is followed by something else")
	}
	if v.Version != recordVersion {
		return Record{}, fmt.Errorf("generation record of version %d, this is version %d", v.Version, recordVersion)
	}
	return v.Record, v.Record.check()
}

func (r Record) check() error {
	if r.Generation == 0 {
		return fmt.Errorf("generation record of guest %s: generation 0", r.Guest)
	}
	switch r.Role {
	case Primary, Secondary:
	default:
		return fmt.Errorf("generation record of guest %s: role %q", r.Guest, r.Role)
	}
	switch r.Phase {
	case Copying, Protecting, Unprotected, HandedOver, Gone, Running, Ended:
		return nil
	}
	return fmt.Errorf("generation record of guest %s: phase %q", r.Guest, r.Phase)
}
