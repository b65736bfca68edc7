// SPDX-License-Identifier: Apache-2.0

package pair

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/kemari-ft/kemari/tools/lab/ether"
	"github.com/kemari-ft/kemari/tools/lab/lab"
	"github.com/kemari-ft/kemari/toolstack/control"
)

// Compared is what a page-by-page comparison of guest and shell saw.
type Compared struct {
	Pages  int // equal ones
	Always int // that travel otherwise
	Epoch  uint64
}

// bareAck is the length of the longest Ethernet frame with a TCP acknowledgement
// and nothing else: 14 octets, 20 of IP, 60 of TCP with all its options. The
// shortest TLS record on top of TCP with its timestamps makes a longer one.
const bareAck = 94

// Compare stops the guest between an acknowledgement and its release, by
// keeping the acknowledgement from arriving, and compares its memory with the
// shell's: the only moment at which they are the same. With stay the guest is
// left like this, acknowledged but not released; else the network is healed.
func (p *Pair) Compare(ctx context.Context, g *Guest, stay bool) (Compared, error) {
	var c Compared
	repl := p.Lab.Net("repl")
	before, err := p.State(ctx, p.A(), g.Name)
	if err != nil {
		return c, err
	}
	repl.Impair("b", "a", ether.Impairment{Short: bareAck})
	if !stay {
		defer repl.Heal()
	}
	// TCP goes on: an epoch arrives whole however long it is, but nothing that
	// kemarid says to it does.
	// The secondary acknowledges one epoch more than the primary ever hears
	// of, or, if an acknowledgement just passed, two.
	b, err := p.WaitState(ctx, p.B(), g.Name, "one epoch ahead of its primary", func(b control.Guest) bool {
		a, err := p.State(ctx, p.A(), g.Name)
		return err == nil && a.Epoch >= before.Epoch && b.Epoch == a.Epoch+1
	})
	if err != nil {
		return c, err
	}
	c.Epoch = b.Epoch
	// The shell is written after the acknowledgement.
	err = until(ctx, settle, func() error {
		var err error
		c.Pages, c.Always, err = p.compare(ctx, g)
		return err
	})
	if err != nil {
		return c, err
	}
	if a, err := p.State(ctx, p.A(), g.Name); err != nil || a.Epoch+1 != b.Epoch {
		return c, errors.Join(err, fmt.Errorf("the guest was released while it was compared: epoch %d of %d", a.Epoch, b.Epoch))
	}
	return c, nil
}

func (p *Pair) compare(ctx context.Context, g *Guest) (pages, always int, err error) {
	da, err := g.domid(ctx, p.A())
	if err != nil {
		return 0, 0, err
	}
	var sums [2]string
	both, ctx := errgroup.WithContext(ctx)
	for i, h := range []*lab.Host{p.A(), p.B()} {
		both.Go(func() (err error) {
			sums[i], err = h.Run(ctx, "pagesum", da) // the shell has the same domid
			return err
		})
	}
	if err := both.Wait(); err != nil {
		return 0, 0, err
	}
	return comparePages(sums[0], sums[1])
}

// comparePages compares the output of pagesum for a guest and its shell.
func comparePages(guest, shell string) (pages, always int, err error) {
	head, guest, _ := strings.Cut(guest, "\n")
	if !strings.HasPrefix(head, "role primary ") {
		return 0, 0, fmt.Errorf("the guest is not a primary but %q", head)
	}
	head, shell, _ = strings.Cut(shell, "\n")
	if !strings.HasPrefix(head, "role secondary ") {
		return 0, 0, fmt.Errorf("the shell is not a secondary but %q", head)
	}
	sums := map[string]string{}
	for line := range strings.Lines(shell) {
		gfn, sum, _ := strings.Cut(strings.TrimSpace(line), " ")
		sums[gfn] = sum
	}
	var differ []string
	for line := range strings.Lines(guest) {
		f := strings.Fields(line)
		if len(f) < 2 {
			return 0, 0, fmt.Errorf("pagesum printed %q", line)
		}
		sum, there := sums[f[0]]
		delete(sums, f[0])
		switch {
		case len(f) > 2:
			always++
		case !there:
			differ = append(differ, f[0]+" (missing)")
		case sum != f[1]:
			differ = append(differ, f[0])
		default:
			pages++
		}
	}
	for gfn := range sums {
		differ = append(differ, gfn+" (too many)")
	}
	if pages == 0 {
		return 0, 0, errors.New("pagesum found no page in guest and shell")
	}
	if len(differ) > 0 {
		return pages, always, fmt.Errorf("%d of %d pages of guest and shell differ: %s",
			len(differ), pages+len(differ), strings.Join(differ[:min(len(differ), 20)], " "))
	}
	return pages, always, nil
}
