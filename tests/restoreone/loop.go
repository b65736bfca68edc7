// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/kemari-ft/kemari/tests/check"
	"github.com/kemari-ft/kemari/toolstack/shell"
	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/xenstore"
)

const stateFile = "/run/restoreone.stream"

// maxJump is what a loaded machine may keep a guest from running. Whether the
// guest's absence shows in its clock is judged exactly, in round().
const maxJump = 30 * time.Second

// clockSlack is how much the guest's clock and dom0's may differ in rate over a
// round, and how old the guest's last look at its clock is when it answers.
const clockSlack = 200 * time.Millisecond

// settle is how long to wait for something that the guest should do at once.
const settle = 4 * time.Minute

func (h *host) loop(cfg string, rounds, boot int, seed int64) error {
	rnd := rand.New(rand.NewSource(seed))
	store, err := xenstore.Dial("")
	if err != nil {
		return err
	}
	defer store.Close()
	var all found
	round := func(dom abi.DomID, queue bool) error {
		f, err := h.save(dom, stateFile, time.Duration(rnd.Int63n(int64(2*time.Second))), queue)
		if err != nil {
			return fmt.Errorf("saving: %w", err)
		}
		if err := (shell.Tools{}).Destroy(context.Background(), dom); err != nil {
			return err
		}
		// libxl counts in seconds how long ago a domid was in use: see
		// LIBXL_DOMID_REUSE_TIMEOUT in libxl_domain.c.
		time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(2 * time.Second)))
		took, err := h.restore(stateFile)
		if err != nil {
			return fmt.Errorf("restoring: %w", err)
		}
		fmt.Printf("%v; resumed in %v; ", f, took)
		all.Queued += min(f.Queued, 1)
		all.Timers += min(f.Timers, 1)
		return nil
	}
	done := 0
	if rounds > 0 {
		g, err := create(store, cfg)
		if err != nil {
			return err
		}
		for range rounds {
			if err := g.round(h, round, done%2 == 1); err != nil {
				return fmt.Errorf("round %d: %w", done+1, err)
			}
			done++
			fmt.Printf("round %d ok\n", done)
		}
		if err := g.destroy(); err != nil {
			return err
		}
	}
	for range boot {
		g, err := create(store, cfg)
		if err != nil {
			return err
		}
		at := time.Duration(rnd.Int63n(int64(12 * time.Second)))
		time.Sleep(at)
		fmt.Printf("%v after xl create: ", at.Round(time.Millisecond))
		err = round(g.dom, done%2 == 1)
		if err == nil {
			err = g.open()
		}
		if err == nil {
			_, err = g.status()
		}
		if err != nil {
			return fmt.Errorf("round %d, %v into the boot: %w", done+1, at, err)
		}
		if err := g.destroy(); err != nil {
			return err
		}
		done++
		fmt.Printf("round %d ok\n", done)
	}
	fmt.Printf("restored %d of %d; in %d events lay in the queues, in %d timers were armed\n",
		done, rounds+boot, all.Queued, all.Timers)
	if rounds >= 20 && (all.Queued == 0 || all.Timers == 0) {
		return errors.New("in so many rounds there should have been some of both")
	}
	return nil
}

// guest is the demonstration guest as its console shows it.
type guest struct {
	store *xenstore.Client
	dom   abi.DomID
	tty   *os.File
	lines chan string
	seen  []string // for the error that says what it did instead
}

func create(store *xenstore.Client, cfg string) (*guest, error) {
	if out, err := exec.Command("xl", "create", cfg).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("xl create %s: %w: %s", cfg, err, out)
	}
	out, err := exec.Command("sh", "-c", "xl domid $(sed -n 's/^name *= *\"\\(.*\\)\"/\\1/p' "+cfg+")").Output()
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(out)), 10, 15)
	if err != nil {
		return nil, err
	}
	g := &guest{store: store, dom: abi.DomID(n)}
	return g, g.open()
}

func (g *guest) destroy() error {
	if g.tty != nil {
		g.tty.Close()
		g.tty = nil
	}
	return (shell.Tools{}).Destroy(context.Background(), g.dom)
}

// open opens the console, which is another pseudo terminal after each round.
func (g *guest) open() error {
	if g.tty != nil {
		g.tty.Close()
	}
	path := fmt.Sprintf("/local/domain/%d/console/tty", uint16(g.dom))
	var name string
	for end := time.Now().Add(settle); name == ""; time.Sleep(50 * time.Millisecond) {
		name, _ = g.store.Read(path)
		if time.Now().After(end) {
			return fmt.Errorf("xenconsoled opens no terminal for %s", g.dom)
		}
	}
	tty, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if out, err := exec.Command("stty", "-F", name, "raw", "-echo").CombinedOutput(); err != nil {
		return fmt.Errorf("stty: %w: %s", err, out)
	}
	g.tty, g.seen = tty, nil
	lines := make(chan string, 1024)
	g.lines = lines
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(tty); s.Scan(); {
			lines <- s.Text()
		}
	}()
	return nil
}

func (g *guest) next(deadline <-chan time.Time) (string, error) {
	select {
	case line, ok := <-g.lines:
		if !ok {
			return "", errors.New("the console was closed")
		}
		g.seen = append(g.seen, line)
		return line, nil
	case <-deadline:
		g.seen = g.seen[max(0, len(g.seen)-20):]
		return "", fmt.Errorf("nothing on the console for %v; last:\n%s", settle, strings.Join(g.seen, "\n"))
	}
}

// ticks waits for n ticks.
func (g *guest) ticks(n int) error {
	deadline := time.After(settle)
	for n > 0 {
		line, err := g.next(deadline)
		if err != nil {
			return err
		}
		if _, ok := check.ParseTick(line); ok {
			n--
		}
	}
	return nil
}

// answer is a status, and when it was asked for and given.
type answer struct {
	check.Status
	asked, given time.Time
}

// status asks the guest, which checks its own memory to answer. It is asked
// once, and not before it ticks, so that the answer is to this question.
func (g *guest) status() (a answer, err error) {
	if err := g.ticks(1); err != nil {
		return a, err
	}
	deadline := time.After(settle)
	a.asked = time.Now()
	if _, err := g.tty.WriteString("status\n"); err != nil {
		return a, err
	}
	for {
		line, err := g.next(deadline)
		if err != nil {
			return a, fmt.Errorf("no answer to status: %w", err)
		}
		var ok bool
		if a.Status, ok, err = check.ParseStatus(line); ok {
			a.given = time.Now()
			return a, err
		}
	}
}

func (g *guest) round(h *host, round func(abi.DomID, bool) error, queue bool) error {
	before, err := g.status()
	if err != nil {
		return err
	}
	if err := round(g.dom, queue); err != nil {
		return err
	}
	if err := g.open(); err != nil {
		return err
	}
	after, err := g.status()
	if err != nil {
		return err
	}
	if err := check.Continuity(before.Status, after.Status, maxJump); err != nil {
		return fmt.Errorf("the guest is not the same any more: %w", err)
	}
	// The guest read its clock somewhere between question and answer.
	least := after.asked.Sub(before.given) - h.resumed.Sub(h.stopping)
	most := after.given.Sub(before.asked) - h.resuming.Sub(h.stopped)
	lived := time.Duration(after.Clocks.MonoNs - before.Clocks.MonoNs)
	if lived < least-clockSlack || lived > most+clockSlack {
		return fmt.Errorf("the guest's clock advanced by %v, where the host's says that it ran for %v to %v (it was away for %v)",
			lived, least, most, h.resuming.Sub(h.stopped))
	}
	return g.ticks(1)
}
