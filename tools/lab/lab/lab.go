// SPDX-License-Identifier: Apache-2.0

// Package lab boots Xen hosts in QEMU, with the networks, disks and power
// switches between them in its own hands. A scenario is an ordinary Go test:
//
//	l, err := lab.New(ctx, lab.Config{})
//	defer l.Close()
//	hosts, err := l.Boot("a", "b")
//	out, err := hosts[0].Run(ctx, "xl", "list")
//	hosts[0].Cut()
package lab

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/kemari-ft/kemari/tools/lab/cache"
	"github.com/kemari-ft/kemari/tools/lab/ether"
	"github.com/kemari-ft/kemari/tools/lab/image"
	"github.com/kemari-ft/kemari/tools/lab/nbd"
)

// Config says what kind of hosts a lab has. The zero value is good.
type Config struct {
	Dir       string            // for logs and captures, kept; "" makes one
	Xen       string            // hypervisor to boot; "" builds it with the patch series
	Variant   image.Variant     // of the hypervisor that is built; image.Debug unless given
	XenArgs   string            // added to Xen's command line
	Tools     []string          // main packages to find below /opt/kemari/bin, as for go build
	Files     map[string]string // more files for /opt/kemari: name there to path here
	SMP       int               // physical CPUs; 1 unless given
	MemoryMiB int               // of a host; 1024 unless given
	Dom0MiB   int               // of dom0; 512 unless given
	Nets      []string          // networks, in the order of eth0, eth1...; DefaultNets unless given
	LUNs      []string          // shared disks, /dev/lun/NAME in dom0; {"lun0"} unless given
	LUNMiB    int               // size of each; 256 unless given
	Log       func(string)      // told what takes long; may be nil
}

// DefaultNets are a network for replication (10.0.0.0/24), one for management
// (10.0.1.0/24), and one that the guests are bridged to (xenbr0, no address).
var DefaultNets = []string{"repl", "mgmt", "guest"}

// A Lab is a set of hosts and what connects them.
type Lab struct {
	ctx    context.Context
	cfg    Config
	xen    string
	dom0   image.Dom0
	tools  string
	qemu   []string
	socks  string // directory of the LUNs' sockets; short, for their names are limited
	nets   map[string]*ether.Network
	luns   map[string]*nbd.LUN
	closed []func() error // run by Close after the hosts are dead

	mu      sync.Mutex
	hosts   map[string]*Host              // protected by mu; the newest of each name
	onFence func(by, victim string) error // protected by mu
}

// New makes whatever hosts boot from, and no host yet. The lab's hosts are cut
// when ctx ends.
func New(ctx context.Context, cfg Config) (*Lab, error) {
	if cfg.Variant == "" {
		cfg.Variant = image.Debug
	}
	if cfg.SMP == 0 {
		cfg.SMP = 1
	}
	if cfg.MemoryMiB == 0 {
		cfg.MemoryMiB = 1024
	}
	if cfg.Dom0MiB == 0 {
		cfg.Dom0MiB = 512
	}
	if cfg.Nets == nil {
		cfg.Nets = DefaultNets
	}
	if cfg.LUNs == nil {
		cfg.LUNs = []string{"lun0"}
	}
	if cfg.LUNMiB == 0 {
		cfg.LUNMiB = 256
	}
	l := &Lab{ctx: ctx, cfg: cfg, hosts: map[string]*Host{}, nets: map[string]*ether.Network{}, luns: map[string]*nbd.LUN{}}
	err := l.prepare(ctx)
	if err == nil {
		err = l.connect()
	}
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("lab: %w", err)
	}
	context.AfterFunc(ctx, l.Close)
	return l, nil
}

func (l *Lab) prepare(ctx context.Context) error {
	store, err := cache.Open()
	if err != nil {
		return err
	}
	b, err := image.NewBuilder(store, l.cfg.Log)
	if err != nil {
		return err
	}
	if l.qemu, err = b.QEMU(ctx); err != nil {
		return err
	}
	if l.xen = l.cfg.Xen; l.xen == "" {
		if l.xen, err = b.Hypervisor(ctx, l.cfg.Variant); err != nil {
			return err
		}
	}
	if l.xen, err = filepath.Abs(l.xen); err != nil {
		return err
	}
	if _, err := os.Stat(l.xen); err != nil {
		return fmt.Errorf("hypervisor: %w", err)
	}
	if l.dom0, err = b.Dom0(ctx); err != nil {
		return err
	}
	if l.tools, err = b.ToolsDisk(ctx, l.cfg.Tools, l.cfg.Files); err != nil {
		return err
	}
	if l.cfg.Dir == "" {
		l.cfg.Dir, err = os.MkdirTemp("", "lab-")
	} else {
		err = os.MkdirAll(l.cfg.Dir, 0o755)
	}
	if err != nil {
		return err
	}
	l.cfg.Dir, err = filepath.Abs(l.cfg.Dir)
	return err
}

// Dir is where the hosts' logs and the captures lie.
func (l *Lab) Dir() string { return l.cfg.Dir }

// connect makes the networks and serves the LUNs.
func (l *Lab) connect() error {
	for _, name := range l.cfg.Nets {
		l.nets[name] = ether.New()
	}
	var err error
	if l.socks, err = os.MkdirTemp("", "lab-"); err != nil {
		return err
	}
	l.closed = append(l.closed, func() error { return os.RemoveAll(l.socks) })
	for _, name := range l.cfg.LUNs {
		lun, err := nbd.Create(filepath.Join(l.cfg.Dir, name+".lun"), uint64(l.cfg.LUNMiB)<<20)
		if err != nil {
			return err
		}
		l.closed = append(l.closed, lun.Close)
		l.luns[name] = lun
		listener, err := net.Listen("unix", l.socket(name))
		if err != nil {
			return err
		}
		l.closed = append(l.closed, listener.Close)
		go lun.Serve(listener)
	}
	return nil
}

func (l *Lab) socket(lun string) string { return filepath.Join(l.socks, lun) }

// Net returns the network of that name.
func (l *Lab) Net(name string) *ether.Network { return l.nets[name] }

// LUN returns the shared disk of that name.
func (l *Lab) LUN(name string) *nbd.LUN { return l.luns[name] }

// Boot powers hosts on, all at the same time, and returns when all are up.
// Hosts are called a to h. One that was cut may be booted again: with a fresh
// root disk, but the same addresses.
func (l *Lab) Boot(names ...string) ([]*Host, error) {
	hosts := make([]*Host, len(names))
	g, ctx := errgroup.WithContext(l.ctx)
	for i, name := range names {
		h, err := l.add(name)
		if err != nil {
			return nil, err
		}
		hosts[i] = h
		g.Go(func() error { return h.waitUp(ctx) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return hosts, nil
}

const hostNames = "abcdefgh"

func (l *Lab) add(name string) (*Host, error) {
	number := strings.Index(hostNames, name) + 1
	if len(name) != 1 || number == 0 {
		return nil, fmt.Errorf("host %q: hosts are called a to h", name)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.ctx.Err(); err != nil {
		return nil, context.Cause(l.ctx)
	}
	if h := l.hosts[name]; h != nil && !h.isDead() {
		return nil, fmt.Errorf("host %s runs already", name)
	}
	h, err := l.powerOn(name, number)
	if err != nil {
		return nil, err
	}
	l.hosts[name] = h
	return h, nil
}

// Host returns the host of that name, or nil: the newest, if it was booted
// more than once.
func (l *Lab) Host(name string) *Host {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hosts[name]
}

// Hosts returns the newest host of each name, in order.
func (l *Lab) Hosts() []*Host {
	l.mu.Lock()
	defer l.mu.Unlock()
	var hosts []*Host
	for _, name := range slices.Sorted(maps.Keys(l.hosts)) {
		hosts = append(hosts, l.hosts[name])
	}
	return hosts
}

// Close cuts all hosts and ends the lab.
func (l *Lab) Close() {
	for _, h := range l.Hosts() {
		h.Cut()
	}
	l.mu.Lock()
	closed := l.closed
	l.closed = nil
	l.mu.Unlock()
	for _, f := range slices.Backward(closed) {
		_ = f() // sockets and files that are in nobody's way
	}
}
