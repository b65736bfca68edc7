// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// console is /dev/console: hvc0 on Xen. A line goes out in one piece.
type console struct {
	fd int
	mu sync.Mutex
}

func openConsole() (*console, error) {
	fd, err := unix.Open("/dev/console", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/console: %w", err)
	}
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("read the settings of /dev/console: %w", err)
	}
	t.Lflag &^= unix.ECHO | unix.ISIG // an echo would mingle with the answers
	t.Lflag |= unix.ICANON
	t.Iflag |= unix.ICRNL
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, t); err != nil {
		return nil, fmt.Errorf("set /dev/console to read lines without echo: %w", err)
	}
	return &console{fd: fd}, nil
}

// line prints one line. There is nobody to tell if that fails.
func (c *console) line(s string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for b := []byte(s + "\n"); len(b) > 0; {
		n, err := unix.Write(c.fd, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return
		}
		b = b[n:]
	}
}

func (c *console) complain(err error) {
	c.line("error " + strings.ReplaceAll(err.Error(), "\n", "; "))
}

func (c *console) json(prefix string, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		c.complain(err)
		return
	}
	c.line(prefix + " " + string(b))
}

// commands reads and obeys, for ever.
func (c *console) commands(g *guest) {
	buf := make([]byte, 256)
	for {
		n, err := unix.Read(c.fd, buf)
		switch {
		case err == unix.EINTR:
		case err != nil:
			c.complain(fmt.Errorf("read the console: %w", err))
			time.Sleep(time.Second)
		case n == 0:
			time.Sleep(time.Second) // the console was hung up
		default:
			for _, line := range bytes.Split(buf[:n], []byte("\n")) {
				if cmd := strings.TrimSpace(string(line)); cmd != "" {
					c.obey(g, cmd)
				}
			}
		}
	}
}

func (c *console) obey(g *guest, cmd string) {
	verb, arg, _ := strings.Cut(cmd, " ")
	switch {
	case verb == "status":
		s := g.status()
		s.Question = arg
		c.json("status", s)
	case verb == "verify":
		v := g.verify()
		v.Question = arg
		c.json("verify", v)
	case verb == "load":
		l, err := parseLoad(arg)
		if err == nil {
			err = g.setLoad(l)
		}
		if err != nil {
			c.complain(err)
			return
		}
		c.line("ok load " + l.String())
	case verb == "gaps" && (arg == "on" || arg == "off" || arg == "reset"):
		switch arg {
		case "on":
			g.meter.setOn(true)
		case "off":
			g.meter.setOn(false)
		case "reset":
			g.meter.reset()
		}
		c.line("ok " + cmd)
	case cmd == "poweroff":
		c.complain(g.shutdown(unix.LINUX_REBOOT_CMD_POWER_OFF))
	case cmd == "reboot":
		c.complain(g.shutdown(unix.LINUX_REBOOT_CMD_RESTART))
	default:
		c.line(fmt.Sprintf("error %.80q: known are status, verify, load idle|cpu|disk|mem=R[,SET], gaps on|off|reset, poweroff, reboot", cmd))
	}
}
