// SPDX-License-Identifier: Apache-2.0

package pair

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/kemari-ft/kemari/tools/lab/lab"
	"github.com/kemari-ft/kemari/toolstack/control"
)

// Hosts is what kemarid of a host says of itself and of its guests: kemari status
// --json, without the half second that the command takes of an emulated processor.
func (p *Pair) Hosts(ctx context.Context, h *lab.Host) (control.Reply, error) {
	var r control.Reply
	ask, err := json.Marshal(control.Request{Version: control.Version, Op: control.OpStatus, Syncs: true})
	if err != nil {
		return r, err
	}
	out, err := h.Ask(ctx, control.Socket, append(ask, '\n'))
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return r, fmt.Errorf("host %s: kemarid's answer: %w\n%s", h.Name, err, out)
	}
	if r.Error != "" {
		return r, fmt.Errorf("host %s: kemarid: %s", h.Name, r.Error)
	}
	return r, nil
}

// State is what kemarid of a host says of a guest.
func (p *Pair) State(ctx context.Context, h *lab.Host, guest string) (control.Guest, error) {
	r, err := p.Hosts(ctx, h)
	if err != nil {
		return control.Guest{}, err
	}
	// The newest one: an earlier guest of that name has left its record.
	var found *control.Guest
	for i, g := range r.Guests {
		if g.Name == guest && (found == nil || g.DomID != 0) {
			found = &r.Guests[i]
		}
	}
	if found == nil {
		return control.Guest{}, fmt.Errorf("host %s: kemarid does not know of guest %s", h.Name, guest)
	}
	return *found, nil
}

// WaitState waits until a guest is in a state that pleases.
func (p *Pair) WaitState(ctx context.Context, h *lab.Host, guest, what string, pleases func(control.Guest) bool) (control.Guest, error) {
	var g control.Guest
	err := until(ctx, 5*time.Minute, func() error {
		var err error
		if g, err = p.State(ctx, h, guest); err != nil {
			return err
		}
		if !pleases(g) {
			return fmt.Errorf("host %s: guest %s is not %s: %+v", h.Name, guest, what, g)
		}
		return nil
	})
	if err != nil {
		err = fmt.Errorf("%w\nkemarid on host %s:\n%s", err, h.Name, DaemonOutput(h))
	}
	return g, err
}

// Protected waits until a guest of host h is protected.
func (p *Pair) Protected(ctx context.Context, h *lab.Host, guest string) (control.Guest, error) {
	return p.WaitState(ctx, h, guest, "protected", func(g control.Guest) bool {
		return g.Role == control.RolePrimary && g.State == "protecting" && g.Epoch > 0
	})
}
