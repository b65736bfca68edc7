// SPDX-License-Identifier: Apache-2.0

// Kemarid keeps guests alive when their host dies: it synchronises the guests
// of this host with another one, and holds the copies of the other's. See
// kemari.conf(5) and docs/ARCHITECTURE.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/hashicorp/go-hclog"

	"github.com/kemari-ft/kemari/toolstack/config"
	"github.com/kemari-ft/kemari/toolstack/daemon"
	"github.com/kemari-ft/kemari/toolstack/host"
)

func main() {
	// With one only, as in a dom0 with one vCPU, Go's scheduler takes it from
	// each goroutine whose system call is not over at once, and wakes another
	// thread to have it. With an idle second one it leaves that more often.
	if runtime.GOMAXPROCS(0) == 1 {
		runtime.GOMAXPROCS(2)
	}
	file := flag.String("config", config.File, "configuration of this host, see kemari.conf(5)")
	debug := flag.Bool("debug", false, "log more")
	flag.Parse()
	level := hclog.Info
	if *debug {
		level = hclog.Debug
	}
	log := hclog.New(&hclog.LoggerOptions{Name: "kemarid", Level: level, Output: os.Stderr})
	if err := slacken(); err != nil {
		log.Warn("pauses will take longer", "error", err)
	}
	if err := run(*file, log); err != nil {
		log.Error("kemarid ends", "error", err)
		os.Exit(1)
	}
}

func run(file string, log host.Log) error {
	cfg, err := config.LoadHost(file)
	if err != nil {
		return err
	}
	h, err := host.Open(cfg, log)
	if err != nil {
		return err
	}
	defer h.Close()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	d, err := daemon.New(h)
	if err != nil {
		return err
	}
	return d.Run(ctx, func() {
		log.Info("kemarid is ready", "xen", h.Identity.XenVersion, "host", h.Identity.UUID)
		if err := notify("READY=1"); err != nil {
			log.Warn("telling the service manager", "error", err)
		}
	})
}

// notify tells systemd about this service, if it was started by it; see
// sd_notify(3).
func notify(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	if path[0] == '@' {
		path = "\x00" + path[1:]
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("sd_notify: %w", err)
	}
	defer c.Close()
	_, err = c.Write([]byte(state))
	return err
}
