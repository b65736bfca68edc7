// SPDX-License-Identifier: Apache-2.0

package pair

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kemari-ft/kemari/tests/check"
	"github.com/kemari-ft/kemari/tools/lab/lab"
)

// settle is how long to wait for what a guest should do at once. The guest runs
// in an emulated host in an emulated machine.
const settle = 5 * time.Minute

// Spec is a guest's configuration.
type Spec struct {
	Name      string
	Kernel    string // its file in dom0; Debian's unless given
	MemoryMiB int    // 96 unless given
	VCPUs     int    // 1 unless given
	Disk      string // "" for none
	Extra     string // for the kernel's command line
	Interval  int    // ft_interval_ms; 0 leaves it out
	CPUs      string // the host's, on which it may run; any unless given

	// EmulatedTSC leaves tsc_mode to Xen, which does not trust an emulated host's
	// TSC and makes every reading an exit. It trusts that of most real hosts.
	EmulatedTSC bool
}

const guestConf = `type = "pvh"
name = "%s"
memory = %d
vcpus = %d
max_grant_version = 1
kernel = "%s"
ramdisk = "/opt/kemari/guest/demo.img"
extra = "console=hvc0 quiet %s"
on_crash = "preserve"
`

// config is the xl configuration; protected asks for protection.
func (s Spec) config(protected bool) string {
	c := fmt.Sprintf(guestConf, s.Name, cmp.Or(s.MemoryMiB, 96), cmp.Or(s.VCPUs, 1),
		cmp.Or(s.Kernel, "/opt/kemari/guest/vmlinux"), s.Extra)
	if !s.EmulatedTSC {
		c += "tsc_mode = \"native\"\n"
	}
	if s.CPUs != "" {
		c += fmt.Sprintf("cpus = %q\n", s.CPUs)
	}
	if s.Disk != "" {
		c += fmt.Sprintf("disk = [ '%s,raw,xvda,rw' ]\n", s.Disk)
	}
	if protected {
		c += "ft = \"kemari\"\n"
		if s.Interval != 0 {
			c += fmt.Sprintf("ft_interval_ms = %d\n", s.Interval)
		}
	}
	return c
}

// Line is what a guest printed.
type Line struct {
	Host string
	At   time.Time // when it was read here
	Text string
}

// Guest is a demonstration guest and all that it printed, on whatever host.
type Guest struct {
	Spec
	pair *Pair
	dom  map[*lab.Host]string // protected by mu: domids found so far

	mu        sync.Mutex
	lines     []Line        // protected by mu
	more      chan struct{} // protected by mu: closed and replaced when lines grows
	rest      map[string][]byte
	questions int                 // protected by mu: asked so far
	asked     map[int64]time.Time // protected by mu: when Status was asked, by the guest's clock in the answer
}

// Create makes a guest on host h by `xl create`, with protected one that asks
// for protection.
func (p *Pair) Create(ctx context.Context, h *lab.Host, s Spec, protected bool) (*Guest, error) {
	file := "/etc/xen/" + s.Name + ".cfg"
	if err := h.PushFrom(ctx, strings.NewReader(s.config(protected)), file, 0o644); err != nil {
		return nil, err
	}
	g := p.Follow(ctx, s, h)
	if protected {
		g.Watch(ctx, p.Other(h))
	}
	if out, err := h.Run(ctx, "xl", "create", file); err != nil {
		return g, fmt.Errorf("%w\n%s\nkemarid on host %s:\n%s", err, out, h.Name, DaemonOutput(h))
	}
	return g, nil
}

// Follow reads what a guest prints on host h from now on.
func (p *Pair) Follow(ctx context.Context, s Spec, h *lab.Host) *Guest {
	g := &Guest{Spec: s, pair: p, dom: map[*lab.Host]string{}, more: make(chan struct{}), rest: map[string][]byte{}, asked: map[int64]time.Time{}}
	g.Watch(ctx, h)
	return g
}

// Watch also reads what the guest prints on another host, until that is cut.
func (g *Guest) Watch(ctx context.Context, h *lab.Host) {
	// A shell's console is logged under the shell's name.
	log := "/var/log/xen/guest-" + g.Name
	call, err := h.Start(nil, "sh", "-c", fmt.Sprintf("rm -f %s.log %s--kemari.log; exec tail -q -n +1 -F %s.log %s--kemari.log 2>/dev/null", log, log, log, log))
	if err != nil {
		return // the host is dead
	}
	var out io.Writer = &sink{g, h.Name}
	file, err := os.Create(filepath.Join(h.Dir(), "guest-"+g.Name+".log"))
	if err == nil { // else the copy in memory has to do
		out = io.MultiWriter(file, out)
	}
	go func() {
		// It ends with the host.
		_, _ = call.Wait(ctx, out, io.Discard)
		file.Close()
	}()
}

type sink struct {
	g    *Guest
	host string
}

// Write takes what a guest printed.
func (s *sink) Write(b []byte) (int, error) {
	now := time.Now()
	g := s.g
	g.mu.Lock()
	defer g.mu.Unlock()
	buf := append(g.rest[s.host], b...)
	for {
		line, rest, ok := bytes.Cut(buf, []byte("\n"))
		if !ok {
			break
		}
		g.lines = append(g.lines, Line{s.host, now, strings.TrimRight(string(line), "\r")})
		buf = rest
	}
	g.rest[s.host] = append([]byte(nil), buf...)
	close(g.more)
	g.more = make(chan struct{})
	return len(b), nil
}

// Lines are all lines after the first n.
func (g *Guest) Lines(n int) []Line {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]Line(nil), g.lines[n:]...)
}

// Len is how many lines there are.
func (g *Guest) Len() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.lines)
}

// Wait waits for a line of host h, after the first from ones, that pleases, and
// answers it and its number.
func (g *Guest) Wait(ctx context.Context, h *lab.Host, from int, limit time.Duration, what string, pleases func(string) bool) (Line, int, error) {
	deadline := time.After(limit)
	for {
		g.mu.Lock()
		for ; from < len(g.lines); from++ {
			if l := g.lines[from]; l.Host == h.Name && pleases(l.Text) {
				g.mu.Unlock()
				return l, from, nil
			}
		}
		more := g.more
		g.mu.Unlock()
		select {
		case <-more:
		case <-deadline:
			return Line{}, from, fmt.Errorf("guest %s on host %s: no %s within %v; its console's end:\n%s", g.Name, h.Name, what, limit, g.end())
		case <-ctx.Done():
			return Line{}, from, context.Cause(ctx)
		}
	}
}

func (g *Guest) end() string {
	var b strings.Builder
	lines := g.Lines(0)
	for _, l := range lines[max(0, len(lines)-25):] {
		fmt.Fprintf(&b, "%s %s %.300s\n", l.At.Format("15:04:05.000"), l.Host, l.Text)
	}
	return b.String()
}

// Tick waits for n ticks on host h after the first from lines.
func (g *Guest) Tick(ctx context.Context, h *lab.Host, from, n int) (first Line, err error) {
	for i := range n {
		var l Line
		l, from, err = g.Wait(ctx, h, from, settle, "tick", func(s string) bool { _, ok := check.ParseTick(s); return ok })
		if err != nil {
			return first, err
		}
		if i == 0 {
			first = l
		}
		from++
	}
	return first, nil
}

// domid finds the guest's domain, once per host.
func (g *Guest) domid(ctx context.Context, h *lab.Host) (string, error) {
	g.mu.Lock()
	d := g.dom[h]
	g.mu.Unlock()
	if d != "" {
		return d, nil
	}
	out, err := h.Run(ctx, "xl", "domid", g.Name)
	if err != nil {
		return "", err
	}
	d = strings.TrimSpace(out)
	g.mu.Lock()
	g.dom[h] = d
	g.mu.Unlock()
	return d, nil
}

// DomID is the guest's domid on host h.
func (g *Guest) DomID(ctx context.Context, h *lab.Host) (string, error) { return g.domid(ctx, h) }

// Type types a line on the guest's console.
func (g *Guest) Type(ctx context.Context, h *lab.Host, line string) error {
	d, err := g.domid(ctx, h)
	if err != nil {
		return err
	}
	_, err = h.Shell(ctx, fmt.Sprintf(`set -e
tty=$(xenstore-read /local/domain/%s/console/tty)
stty -F "$tty" raw -echo
printf '%%s\n' '%s' >"$tty"`, d, line))
	return err
}

// ask types a line until an answer pleases: what is typed while the guest
// boots may get lost.
func (g *Guest) ask(ctx context.Context, h *lab.Host, line string, pleases func(string) bool) error {
	from := g.Len()
	deadline := time.Now().Add(settle)
	for {
		if err := g.Type(ctx, h, line); err != nil {
			return err
		}
		_, _, err := g.Wait(ctx, h, from, 20*time.Second, "answer to "+line, pleases)
		if err == nil || ctx.Err() != nil || time.Now().After(deadline) {
			return err
		}
	}
}

// question makes a question's answer known: one that was typed again has two, and the
// second may be seconds old when it comes, since a guest's output is held.
func (g *Guest) question() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.questions++
	return strconv.Itoa(g.questions)
}

// Status asks the guest for its status.
func (g *Guest) Status(ctx context.Context, h *lab.Host) (check.Status, error) {
	var s check.Status
	var bad error
	asked, question := time.Now(), g.question()
	err := g.ask(ctx, h, "status "+question, func(text string) bool {
		var ok bool
		s, ok, bad = check.ParseStatus(text)
		return ok && bad == nil && s.Question == question
	})
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked[s.Clocks.MonoNs] = asked
	return s, err
}

// Verify makes the guest recompute its chain and read its disk.
func (g *Guest) Verify(ctx context.Context, h *lab.Host) (check.Verify, error) {
	var v check.Verify
	var bad error
	question := g.question()
	err := g.ask(ctx, h, "verify "+question, func(text string) bool {
		var ok bool
		v, ok, bad = check.ParseVerify(text)
		return ok && bad == nil && v.Question == question
	})
	if err == nil && !v.OK {
		err = fmt.Errorf("guest %s: verify: %+v", g.Name, v)
	}
	return v, err
}

// Obey types a command that is answered with ok.
func (g *Guest) Obey(ctx context.Context, h *lab.Host, cmd string) error {
	return g.ask(ctx, h, cmd, func(text string) bool { return text == "ok "+cmd || strings.HasPrefix(text, "ok load") })
}
