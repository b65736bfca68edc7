// SPDX-License-Identifier: Apache-2.0

package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
	"github.com/google/uuid"
	"github.com/kemari-ft/kemari/toolstack/lease"
)

// Records are the files about guests: DIR/UUID/record is the lease.Record,
// DIR/UUID/policy says that the guest is to be protected, and how.
type Records struct{ Dir string }

// Policy says how a guest is protected. It is kept by UUID, so that it
// outlives a reboot of the guest, which xl's configuration of it does not.
type Policy struct {
	Name     string        `json:"name"`
	Peer     string        `json:"peer"`
	Interval time.Duration `json:"interval"`
}

func (r Records) file(guest uuid.UUID, name string) string {
	return filepath.Join(r.Dir, guest.String(), name)
}

// write replaces a file so that after a power cut there is the old or the new
// one, also if the directory is new.
func (r Records) write(guest uuid.UUID, name string, data []byte) error {
	file := r.file(guest, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	if err := renameio.WriteFile(file, data, 0o600); err != nil {
		return err
	}
	return errors.Join(syncDir(filepath.Dir(file)), syncDir(r.Dir))
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// ErrPersist: a record could not be written. Nothing that depends on it may be
// done, and so the daemon has to stop.
var ErrPersist = errors.New("the record cannot be written")

// Persist writes a record.
func (r Records) Persist(rec lease.Record) error {
	b, err := rec.Encode()
	if err == nil {
		err = r.write(rec.Guest, "record", b)
	}
	if err != nil {
		return fmt.Errorf("guest %s: %w: %w", rec.Guest, ErrPersist, err)
	}
	return nil
}

// Load reads the record of a guest; it is the zero value if there is none.
func (r Records) Load(guest uuid.UUID) (lease.Record, error) {
	b, err := os.ReadFile(r.file(guest, "record"))
	if errors.Is(err, fs.ErrNotExist) {
		return lease.Record{}, nil
	}
	if err != nil {
		return lease.Record{}, err
	}
	rec, err := lease.Decode(b)
	if err == nil && rec.Guest != guest {
		err = fmt.Errorf("it is about guest %s", rec.Guest)
	}
	if err != nil {
		return lease.Record{}, fmt.Errorf("record of guest %s: %w", guest, err)
	}
	return rec, nil
}

// Guests lists the guests of which there are records or policies.
func (r Records) Guests() ([]uuid.UUID, error) {
	entries, err := os.ReadDir(r.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var guests []uuid.UUID
	for _, e := range entries {
		if id, err := uuid.Parse(e.Name()); err == nil && e.IsDir() {
			guests = append(guests, id)
		}
	}
	return guests, nil
}

// SetPolicy makes the guest one to be protected.
func (r Records) SetPolicy(guest uuid.UUID, p Policy) error {
	b, err := json.MarshalIndent(p, "", "  ")
	if err == nil {
		err = r.write(guest, "policy", append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("policy of guest %s: %w", guest, err)
	}
	return nil
}

// Policy returns the policy of a guest, nil if it is not to be protected.
func (r Records) Policy(guest uuid.UUID) (*Policy, error) {
	b, err := os.ReadFile(r.file(guest, "policy"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var p Policy
	if err == nil {
		err = json.Unmarshal(b, &p)
	}
	if err != nil {
		return nil, fmt.Errorf("policy of guest %s: %w", guest, err)
	}
	return &p, nil
}

// RemovePolicy makes the guest an ordinary one.
func (r Records) RemovePolicy(guest uuid.UUID) error {
	err := os.Remove(r.file(guest, "policy"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
