// SPDX-License-Identifier: Apache-2.0

package control

import (
	"github.com/kemari-ft/kemari/toolstack/primary"
	"github.com/kemari-ft/kemari/toolstack/secondary"
)

// What a host is to a guest.
const (
	RolePrimary   = "primary"
	RoleSecondary = "secondary"
)

// Guest describes one guest that this host knows of.
type Guest struct {
	Name       string `json:"name"`
	UUID       string `json:"uuid"`
	DomID      uint16 `json:"domid,omitempty"` // 0: there is no domain
	Role       string `json:"role"`
	State      string `json:"state"` // a lease.Phase, or "lost"
	Generation uint64 `json:"generation"`
	Epoch      uint64 `json:"epoch"`             // newest one acknowledged
	Waiting    string `json:"waiting,omitempty"` // for what output is held
	Peer       string `json:"peer,omitempty"`
	Text       string `json:"text,omitempty"` // what was reported last

	Copied uint64 `json:"copied,omitempty"` // pages, in the first copy
	Total  uint64 `json:"total,omitempty"`
	Syncs  uint64 `json:"syncs,omitempty"`
	Reads  uint64 `json:"reads,omitempty"`   // stops that needed no epoch
	PutOff uint64 `json:"put_off,omitempty"` // syncs that xenstore put off
	Busy   string `json:"busy,omitempty"`

	Dropped    uint64                `json:"dropped,omitempty"` // torn or corrupt, at a secondary
	Last       []primary.Sync        `json:"last,omitempty"`
	Activation *secondary.Activation `json:"activation,omitempty"`
}

// Host describes this host.
type Host struct {
	UUID       string `json:"uuid"`
	XenVersion string `json:"xen_version"`
	Peer       string `json:"peer,omitempty"`
	Fence      bool   `json:"fence"`
}
