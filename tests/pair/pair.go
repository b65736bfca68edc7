// SPDX-License-Identifier: Apache-2.0

// Package pair is two lab hosts with kemarid between them, as the scenarios,
// the demonstration and the benchmark need them: a runs the guests, b is to
// take them over.
package pair

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/kemari-ft/kemari/tools/lab/control"
	"github.com/kemari-ft/kemari/tools/lab/lab"
	"github.com/kemari-ft/kemari/toolstack/transport"
	"golang.org/x/sync/errgroup"
)

const module = "github.com/kemari-ft/kemari/"

// Config says what is special about a pair. The zero value is good.
type Config struct {
	Lab   lab.Config   // Tools, Files and Log are added to
	Log   func(string) // told what is done; may be nil
	Conf  string       // more lines for both hosts' kemari.conf
	Guest string       // the demonstration guest's initramfs; "" builds it
	// Misses is how many heartbeats a peer may miss. All of a lab shares a few
	// cores, so that seconds of silence say nothing; 20 unless given.
	Misses int
	// Slowly is for measurements of hosts on which a pause takes more than 20 times
	// as long as on real ones. Go's monitor thread looks every millisecond what a
	// goroutine does, as kemarid has it, and stops one that runs for 10 ms: never or
	// once in a real pause. With Slowly these times are longer, too.
	Slowly bool
}

// Pair is two hosts. Cut hosts stay cut until Repair.
type Pair struct {
	Lab *lab.Lab

	cfg   Config
	certs map[string][2][]byte // by host: certificate, key

	mu     sync.Mutex
	fenced []Fencing
}

// Fencing is a request to the power switch.
type Fencing struct {
	By, Victim string
	At         time.Time
}

// Start boots the hosts a and b, with kemarid running.
func Start(ctx context.Context, cfg Config) (*Pair, error) {
	if cfg.Log == nil {
		cfg.Log = func(string) {}
	}
	if cfg.Misses == 0 {
		cfg.Misses = 20
	}
	p := &Pair{cfg: cfg, certs: map[string][2][]byte{}}
	for _, name := range []string{"a", "b"} {
		cert, key, err := transport.CreateCertificate(name)
		if err != nil {
			return nil, err
		}
		p.certs[name] = [2][]byte{cert, key}
	}
	lc := cfg.Lab
	lc.Log = cfg.Log
	lc.Tools = append([]string{module + "tools/kemarid", module + "tools/kemari", module + "tests/pagesum"}, lc.Tools...)
	image := cfg.Guest
	if image == "" {
		tmp, err := os.MkdirTemp("", "demo-guest-")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(tmp)
		image = filepath.Join(tmp, "demo.img")
		if err := BuildGuest(ctx, image, cfg.Log); err != nil {
			return nil, err
		}
	}
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", strings.TrimSuffix(module, "/")).Output()
	if err != nil {
		return nil, fmt.Errorf("looking for the module's directory: %w", err)
	}
	files := map[string]string{
		"guest/demo.img": image,
		"block-kemari":   filepath.Join(strings.TrimSpace(string(root)), "tools/kemarid/block-kemari"),
	}
	for name, path := range lc.Files {
		files[name] = path
	}
	lc.Files = files
	l, err := lab.New(ctx, lc)
	if err != nil {
		return nil, err
	}
	p.Lab = l
	l.OnFence(p.fencing)
	// For who wants to look into it: KEMARI_LAB=<its directory> tools/lab run.
	// It does not work where the name of a socket there is too long.
	if err := control.Serve(ctx, l, func() {}); err != nil {
		p.say("nobody can look into the lab: %v", err)
	}
	p.say("the lab is in %s", l.Dir())
	if err := p.boot(ctx, "a", "b"); err != nil {
		l.Close()
		return nil, err
	}
	return p, nil
}

// Close cuts both hosts.
func (p *Pair) Close() { p.Lab.Close() }

// A is the newest host a.
func (p *Pair) A() *lab.Host { return p.Lab.Host("a") }

// B is the newest host b.
func (p *Pair) B() *lab.Host { return p.Lab.Host("b") }

// Other is the other host.
func (p *Pair) Other(h *lab.Host) *lab.Host {
	if h.Name == "a" {
		return p.B()
	}
	return p.A()
}

func (p *Pair) say(format string, args ...any) { p.cfg.Log(fmt.Sprintf(format, args...)) }

// Repair powers hosts on that were cut, with nothing on their disks.
func (p *Pair) Repair(ctx context.Context, names ...string) error { return p.boot(ctx, names...) }

func (p *Pair) boot(ctx context.Context, names ...string) error {
	began := time.Now()
	hosts, err := p.Lab.Boot(names...)
	if err != nil {
		return err
	}
	p.say("booted %s in %v", strings.Join(names, " and "), time.Since(began).Round(time.Second))
	g, ctx := errgroup.WithContext(ctx)
	for _, h := range hosts {
		g.Go(func() error {
			if err := p.configure(ctx, h); err != nil {
				return err
			}
			return p.StartDaemon(ctx, h)
		})
	}
	return g.Wait()
}

func peerOf(h *lab.Host) (string, int) {
	if h.Name == "a" {
		return "b", 2
	}
	return "a", 1
}

const conf = `peer   = "kemari:tcp:10.0.0.%[2]d:7460"
listen = "kemari:tcp:10.0.0.%[1]d:7460"
heartbeat_misses = %[4]d
heartbeat_second = "10.0.1.%[2]d:7461"
fence_command = [ "/opt/kemari/lab/lab-fence", "%[3]s" ]
detach_wait_ms = 600000
%[5]s
`

func (p *Pair) configure(ctx context.Context, h *lab.Host) error {
	peer, n := peerOf(h)
	if _, err := h.Shell(ctx, `set -e
mkdir -p /etc/xen/kemari
chmod 700 /etc/xen/kemari
ln -sf /opt/kemari/bin/kemari /usr/sbin/kemari
install -m 755 /opt/kemari/block-kemari /etc/xen/scripts/block-kemari`); err != nil {
		return err
	}
	for file, content := range map[string][]byte{
		"kemari/cert.pem": p.certs[h.Name][0],
		"kemari/key.pem":  p.certs[h.Name][1],
		"kemari.conf":     fmt.Appendf(nil, conf, h.Number, n, peer, p.cfg.Misses, p.cfg.Conf),
	} {
		if err := h.PushFrom(ctx, bytes.NewReader(content), "/etc/xen/"+file, 0o600); err != nil {
			return err
		}
	}
	return p.introduce(ctx, h)
}

// introduce makes the other host known to host h. Its certificate is what the other
// one prints of itself: a host that lost its power comes back with the same one.
func (p *Pair) introduce(ctx context.Context, h *lab.Host) error {
	peer, _ := peerOf(h)
	own, err := h.Run(ctx, "kemari", "pair", "--export")
	if err != nil {
		return err
	}
	if own != string(p.certs[h.Name][0]) {
		return fmt.Errorf("host %s: kemari pair --export prints another certificate than its own:\n%s", h.Name, own)
	}
	call, err := h.Start(bytes.NewReader(p.certs[peer][0]), "kemari", "pair", "--accept")
	if err != nil {
		return err
	}
	var out bytes.Buffer
	status, err := call.Wait(ctx, &out, &out)
	if err == nil && status.Code != 0 {
		err = fmt.Errorf("host %s: kemari pair --accept: status %d: %s", h.Name, status.Code, &out)
	}
	return err
}

// DaemonLog is where kemarid's messages are.
const DaemonLog = "/var/log/kemarid.log"

// StartDaemon starts kemarid and waits until it answers.
func (p *Pair) StartDaemon(ctx context.Context, h *lab.Host) error {
	// Its messages also go to the host's directory: after a power cut the
	// file in dom0 is gone.
	log, err := os.OpenFile(filepath.Join(h.Dir(), "kemarid.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	slowly := ""
	if p.cfg.Slowly {
		slowly = "echo 5000000 >/proc/$$/timerslack_ns && export GODEBUG=asyncpreemptoff=1 && "
	}
	call, err := h.Start(nil, "sh", "-c", "echo $$ >/run/kemarid.pid; "+slowly+"exec kemarid 2>&1 | tee -a "+DaemonLog)
	if err != nil {
		return err
	}
	go func() {
		defer log.Close()
		if _, err := call.Wait(context.WithoutCancel(ctx), log, log); err != nil {
			fmt.Fprintf(log, "end of log: %v\n", err)
		}
	}()
	return until(ctx, time.Minute, func() error {
		_, err := p.Hosts(ctx, h)
		if err != nil {
			return fmt.Errorf("kemarid on host %s: %w\n%s", h.Name, err, tail(filepath.Join(h.Dir(), "kemarid.log")))
		}
		return nil
	})
}

// DaemonOutput is what kemarid has said on a host, alive or dead.
func DaemonOutput(h *lab.Host) string { return tail(filepath.Join(h.Dir(), "kemarid.log")) }

func tail(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-6000):])
}

func (p *Pair) fencing(by, victim string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fenced = append(p.fenced, Fencing{by, victim, time.Now()})
	return nil
}

// Fencings are the requests to the power switch so far.
func (p *Pair) Fencings() []Fencing {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Fencing(nil), p.fenced...)
}

// until tries f until it succeeds; after the limit its last error is returned.
func until(ctx context.Context, limit time.Duration, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-time.After(300 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("not within %v: %w", limit, err)
		}
	}
}
