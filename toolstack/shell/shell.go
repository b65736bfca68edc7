// SPDX-License-Identifier: Apache-2.0

package shell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/kemari-ft/kemari/toolstack/shell/xlstream"
	"github.com/kemari-ft/kemari/xen/abi"
)

// cleanupTime is how long the removal of a half-made shell may take after the
// caller has lost interest.
const cleanupTime = 30 * time.Second

// Create makes the shell of g: paused, in xenstore under its shell's name, with
// its libxl-json fit for the guest's later reboots.  When it fails no domain is
// left behind, unless the error says so.
func (t Tools) Create(ctx context.Context, g *xlstream.Guest) error {
	if err := g.Check(); err != nil {
		return err
	}
	if name, err := t.name(ctx, g.DomID); err == nil {
		return fmt.Errorf("make shell of %q: domid %d is in use on this host by %q", g.Config.Name(), uint16(g.DomID), name)
	} else if ctx.Err() != nil {
		return err
	}
	// xl reads the save file from a pipe, which /proc names; a pipe needs no
	// room on a disk and cannot be found lying about later.
	r, w := io.Pipe()
	wrote := make(chan error, 1)
	go func() {
		err := xlstream.Write(w, g)
		w.CloseWithError(err)
		wrote <- err
	}()
	_, err := t.run(ctx, g.DomID, r, "restore", "-p", "/proc/self/fd/0")
	r.Close() // unblocks the writer if xl left early
	if werr := <-wrote; err == nil && werr != nil {
		err = werr
	}
	if err == nil {
		err = t.park(g)
	}
	if err == nil {
		return nil
	}
	return errors.Join(fmt.Errorf("make shell of %q: %w", g.Config.Name(), err), t.discard(ctx, g))
}

func (t Tools) park(g *xlstream.Guest) error {
	json, err := g.Config.Parked()
	if err != nil {
		return err
	}
	if err := t.SaveConfig(g.DomID, g.Config.UUID(), json); err != nil {
		return err
	}
	return t.keepActive(g.DomID, g.Config)
}

// discard destroys what a failed Create has left.  xl cleans up after itself
// when it fails, but not when it is killed.
func (t Tools) discard(ctx context.Context, g *xlstream.Guest) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	if name, err := t.name(ctx, g.DomID); err != nil || name != g.Config.ShellName() {
		return nil
	}
	if err := t.Destroy(ctx, g.DomID); err != nil {
		return fmt.Errorf("half-made shell is left behind: %w", err)
	}
	return nil
}

// name is what xl calls a domain; an error means that there is none.
func (t Tools) name(ctx context.Context, dom abi.DomID) (string, error) {
	return t.run(ctx, dom, nil, "domname", domArg(dom))
}

// Activate gives a shell the guest's own name, and its devices in libxl-json:
// from now on it is what xl list shows and what a reboot builds again.  The one
// is done also if the other fails.  After an error it can be done again: until
// it has succeeded, Unfinished returns cfg.
func (t Tools) Activate(ctx context.Context, dom abi.DomID, cfg *xlstream.Config) error {
	json, err := cfg.Active()
	if err == nil {
		err = t.SaveConfig(dom, cfg.UUID(), json)
	}
	if err = errors.Join(err, t.giveName(ctx, dom, cfg)); err != nil {
		return err
	}
	return t.dropActive(dom, cfg.UUID())
}

// Rename gives a domain another name, which libxl refuses if it is taken. A
// domain that has it already keeps it.
func (t Tools) Rename(ctx context.Context, dom abi.DomID, name string) error {
	_, err := t.run(ctx, dom, nil, "rename", domArg(dom), name)
	if err != nil {
		if has, nameErr := t.name(ctx, dom); nameErr == nil && has == name {
			return nil
		}
	}
	return err
}

// Destroy destroys a domain.
func (t Tools) Destroy(ctx context.Context, dom abi.DomID) error {
	_, err := t.run(ctx, dom, nil, "destroy", domArg(dom))
	return err
}
