// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
)

// A power controller answers the fence requests that lab-fence in a host's
// dom0 writes to its second virtio-serial port, a line each:
//
//	off HOST     answered "ok" when the host is fenced
//	status HOST  answered "ok on" or "ok off"
//
// or "error" and the reason. It plays what IPMI is in a rack, on wires of its
// own: no partition of a network separates a host from it, but OnFence can.

// OnFence sets a function that is asked before a host is fenced on behalf of
// another. It may wait; its error refuses. Nil is the normal controller.
func (l *Lab) OnFence(f func(by, victim string) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.onFence = f
}

// Fence cuts a host's power and returns when neither its processes nor any of
// its disk requests are left.
func (l *Lab) Fence(ctx context.Context, name string) error {
	h := l.Host(name)
	if h == nil {
		return fmt.Errorf("fencing: there is no host %q", name)
	}
	h.Cut()
	for _, lun := range l.luns {
		if err := lun.Drain(ctx, name); err != nil {
			return fmt.Errorf("fencing: host %s is off but not drained: %w", name, err)
		}
	}
	return nil
}

func (l *Lab) serveFence(by string, conn net.Conn) {
	r := bufio.NewReaderSize(conn, 512)
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return // the host is dead, or it writes no lines
		}
		answer, err := l.powerRequest(by, string(line))
		if err != nil {
			answer = "error " + strings.ReplaceAll(err.Error(), "\n", " ")
		}
		if _, err := conn.Write([]byte(answer + "\n")); err != nil {
			return
		}
	}
}

func (l *Lab) powerRequest(by, line string) (string, error) {
	verb, name, _ := strings.Cut(strings.TrimSpace(line), " ")
	h := l.Host(name)
	if h == nil {
		return "", fmt.Errorf("there is no host %q", name)
	}
	switch verb {
	case "off":
		l.mu.Lock()
		ask := l.onFence
		l.mu.Unlock()
		if ask != nil {
			if err := ask(by, name); err != nil {
				return "", err
			}
		}
		return "ok", l.Fence(l.ctx, name)
	case "status":
		if h.isDead() {
			return "ok off", nil
		}
		return "ok on", nil
	}
	return "", fmt.Errorf("unknown request %q", verb)
}
