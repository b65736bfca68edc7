// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/kemari-ft/kemari/toolstack/config"
	"github.com/kemari-ft/kemari/toolstack/control"
	"github.com/kemari-ft/kemari/toolstack/host"
	"github.com/kemari-ft/kemari/toolstack/shell"
	"github.com/kemari-ft/kemari/toolstack/xlcfg"
	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/spf13/cobra"
)

// guestFile is a guest's configuration that asks for protection.
type guestFile struct {
	file *xlcfg.File
	ft   *config.Guest
}

func loadGuest(name string) (*guestFile, error) {
	h, err := config.LoadHost(config.File)
	if err != nil {
		return nil, err
	}
	f, err := xlcfg.Load(name)
	if err != nil {
		return nil, err
	}
	ft, err := config.ParseGuest(f, h)
	if err != nil {
		return nil, err
	}
	if ft == nil {
		return nil, fmt.Errorf(`%s does not ask for protection; add ft = "kemari", or use xl create`, name)
	}
	return &guestFile{f, ft}, nil
}

// prepare asks kemarid for a domid.
func prepare(name, id string, ft *config.Guest) (abi.DomID, error) {
	r := control.Request{Op: control.OpPrepare, Name: name, UUID: id}
	if ft != nil {
		r.Config, r.Peer, r.Interval = true, ft.Peer.String(), ft.Interval
	}
	reply, err := ask(r)
	if err != nil {
		return 0, err
	}
	return abi.DomID(reply.DomID), nil
}

func hookCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:    "create-hook",
		Short:  "What xl calls when it creates a guest",
		Hidden: true,
	}
	cmd.AddCommand(&cobra.Command{
		Use:  "prepare NAME UUID [FILE]",
		Args: cobra.RangeArgs(2, 3),
		RunE: func(_ *cobra.Command, args []string) error {
			var ft *config.Guest
			if len(args) == 3 {
				var err error
				if ft, err = hookGuest(args[2]); err != nil {
					return err
				}
			}
			dom, err := prepare(args[0], args[1], ft)
			if ft == nil && errors.Is(err, control.ErrNoDaemon) {
				return unlessWanted(args[1], err)
			}
			if err != nil {
				return err
			}
			if dom != 0 {
				fmt.Printf("domid=%d\n", uint16(dom))
			}
			return nil
		},
	}, &cobra.Command{
		Use:  "protect DOMID",
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			_, err := ask(control.Request{Op: control.OpProtect, Guest: args[0]})
			return err
		},
	})
	return cmd
}

// hookGuest is what xl makes of a configuration. The ft keys may come from its
// command line; where the file has ft, it is judged as kemari create would.
func hookGuest(name string) (*config.Guest, error) {
	h, err := config.LoadHost(config.File)
	if err != nil {
		return nil, err
	}
	ft := &config.Guest{Peer: h.Peer, Interval: time.Second}
	if s := os.Getenv("KEMARI_FT_PEER"); s != "" {
		if ft.Peer, err = config.ParseURI(s); err != nil {
			return nil, fmt.Errorf("%s: ft_peer: %w", name, err)
		}
		h.Peer = ft.Peer
	}
	f, err := xlcfg.Load(name)
	if err != nil {
		return nil, err
	}
	if _, here := f.Get("ft"); here {
		_, err = config.ParseGuest(f, h)
	} else {
		err = config.CheckKeys(f)
	}
	if err != nil {
		return nil, err
	}
	if s := os.Getenv("KEMARI_FT_INTERVAL_MS"); s != "" {
		ms, err := strconv.ParseUint(s, 10, 32)
		ft.Interval = time.Duration(ms) * time.Millisecond
		if err != nil || ft.Interval < config.MinInterval || ft.Interval > config.MaxInterval {
			return nil, fmt.Errorf("%s: ft_interval_ms: %.40q; allowed: a number from %d to %d",
				name, s, config.MinInterval.Milliseconds(), config.MaxInterval.Milliseconds())
		}
	}
	return ft, nil
}

// unlessWanted: a guest that is not protected reboots whether or not kemarid
// runs.
func unlessWanted(id string, noDaemon error) error {
	guest, err := uuid.Parse(id)
	if err != nil {
		return err
	}
	p, err := (host.Records{Dir: host.StateDir}).Policy(guest)
	if err != nil {
		return err
	}
	if p != nil {
		return fmt.Errorf("%s is to be protected: %w", p.Name, noDaemon)
	}
	return nil
}

func createCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "create FILE",
		Short: "Create a guest as xl create does, and protect it before it runs",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			g, err := loadGuest(args[0])
			if err != nil {
				return err
			}
			return create(cmd.Context(), args[0], g)
		},
	}
}

// create does with an xl that knows nothing of ft what xl does that does.
func create(ctx context.Context, name string, g *guestFile) error {
	setting, ok := g.file.Get("name")
	if !ok {
		return g.file.Errorf(1, "name is missing")
	}
	guest := setting.Value.Text
	id := uuid.NewString()
	if s, ok := g.file.Get("uuid"); ok {
		id = s.Value.Text
	}
	// The domid is in xl's hands: no key of its configuration names it. What
	// kemarid checks is everything else.
	if _, err := prepare(guest, id, g.ft); err != nil {
		return err
	}
	text, err := rewrite(name, g.file, id)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp("/run", "kemari-*.cfg")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err := f.Write(text); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := xl("create", "-p", "-q", f.Name()); err != nil {
		return err
	}
	if _, err := ask(control.Request{Op: control.OpProtect, Guest: guest}); err != nil {
		err = fmt.Errorf("%s is not started: %w", guest, err)
		return errors.Join(err, (shell.Tools{}).Destroy(ctx, domOf(guest)))
	}
	return xl("unpause", guest)
}

// ftLine is a setting of an ft key: none of them can span lines.
var ftLine = regexp.MustCompile(`(?m)^[ \t]*ft(_[a-z_]+)?[ \t]*=.*$`)

// rewrite makes the configuration one whose guest can be protected: later
// settings replace earlier ones of the same key.
func rewrite(name string, f *xlcfg.File, id string) ([]byte, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	// An xl that knows ft would do all of this itself, and chooses the domid:
	// here it is the operator's xl that is asked for no more than a guest.
	b.Write(bytes.TrimRight(ftLine.ReplaceAll(text, nil), "\n"))
	fmt.Fprintf(&b, "\n# kemari create\nuuid = %q\nmax_grant_version = 1\n", id)
	if s, ok := f.Get("disk"); ok {
		disks, err := config.TapDisks(s.Value)
		if err != nil {
			return nil, f.Errorf(s.Line, "%v", err)
		}
		quoted := make([]string, len(disks))
		for i, d := range disks {
			quoted[i] = "'" + d + "'"
		}
		fmt.Fprintf(&b, "disk = [ %s ]\n", strings.Join(quoted, ", "))
	}
	return b.Bytes(), nil
}

// xl runs xl with the operator's terminal.
func xl(args ...string) error {
	cmd := exec.Command("xl", args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("xl %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

func domOf(guest string) abi.DomID {
	out, err := exec.Command("xl", "domid", guest).Output()
	if err != nil {
		return abi.DomIDSelf
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(out)), 10, 15)
	if err != nil {
		return abi.DomIDSelf
	}
	return abi.DomID(n)
}
