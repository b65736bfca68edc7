// SPDX-License-Identifier: Apache-2.0

package secondary

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/kemari-ft/kemari/toolstack/host"
	"github.com/kemari-ft/kemari/toolstack/lease"
	"github.com/kemari-ft/kemari/toolstack/shell/xlstream"
	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/kemariop"
)

// FindShell finds the shell of a guest on this host, 0 if there is no domain of
// the guest. One that is there and may be more than a shell is an error: it is
// not to be destroyed, and the guest not to be copied here.
func FindShell(h *host.Host, guest uuid.UUID) (abi.DomID, error) {
	dom, name, err := h.Find(guest)
	if err != nil || dom == 0 {
		return 0, err
	}
	why, err := NotShell(h, guest, dom, name)
	if err != nil {
		return 0, err
	}
	if why != "" {
		return 0, fmt.Errorf("guest %s exists on this host already, as domain %d, %q: %s", guest, uint16(dom), name, why)
	}
	return dom, nil
}

// NotShell says why a domain of the guest is not certainly its shell, "" if it
// is.
func NotShell(h *host.Host, guest uuid.UUID, dom abi.DomID, name string) (string, error) {
	rec, err := h.Records.Load(guest)
	if err != nil {
		return "", err
	}
	info, err := h.Ctl.DomainInfo(dom)
	if err != nil {
		return "", err
	}
	role, err := roleOf(h, dom)
	if err != nil {
		return "", err
	}
	return notShell(name, info.Is(abi.DomInfPaused), role, rec), nil
}

// notShell is NotShell's judgement. The domain's name alone does not tell: an
// activated guest keeps its shell's until xl has renamed it. But its record says
// that it runs here before it does, and Xen runs no domain of the secondary's
// role.
func notShell(name string, paused bool, role kemariop.Role, rec lease.Record) string {
	switch {
	case !strings.HasSuffix(name, xlstream.ShellSuffix):
		return "it does not have the name of a shell"
	case rec.Phase == lease.Running:
		return fmt.Sprintf("it was activated here, from epoch %d of generation %d on", rec.Epoch, rec.Generation)
	case rec.Role == lease.Primary:
		return "it was protected here"
	case role == kemariop.RoleSecondary:
		return ""
	case role == kemariop.RoleNone && paused:
		return "" // whoever made it did not come to OpenShell
	}
	return "it runs"
}

func roleOf(h *host.Host, dom abi.DomID) (role kemariop.Role, err error) {
	op, err := kemariop.New(h.Hypercalls, dom)
	if err != nil {
		return role, err
	}
	st, err := op.Status()
	return st.Role, errors.Join(err, op.Close())
}

// Finish ends the activation of a guest that, as its record says, runs here: the
// daemon that began it may have died in the midst of it, or xl may have failed.
// It may be called at any time.
func Finish(ctx context.Context, h *host.Host, guest uuid.UUID) error {
	dom, name, err := h.Find(guest)
	if err != nil || dom == 0 {
		return err
	}
	role, err := roleOf(h, dom)
	if err != nil {
		return err
	}
	if role == kemariop.RoleSecondary {
		// What it would have gone on from was in that daemon's memory.
		return fmt.Errorf("guest %s is lost: its activation broke off before it ran; its shell, domain %d, %q, is left as it is "+
			"(destroy it, and start the guest anew)", guest, uint16(dom), name)
	}
	cfg, err := h.Tools.Unfinished(dom, guest.String())
	if err != nil || cfg == nil {
		return err
	}
	info, err := h.Ctl.DomainInfo(dom)
	if err != nil {
		return err
	}
	if info.Is(abi.DomInfPaused) {
		// The last pause, after Resume.
		if err := h.Ctl.Unpause(dom); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, buildTime)
	defer cancel()
	return h.Tools.Activate(ctx, dom, cfg)
}
