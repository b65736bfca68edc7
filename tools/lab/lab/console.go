// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"io"
	"os"
	"regexp"
	"sync"
	"time"
)

// A Console is a host's first serial port: Xen's messages and, interleaved,
// those of dom0. All of it is kept.
type Console struct {
	host string
	w    io.Writer // input to the serial port

	mu   sync.Mutex
	text []byte        // protected by mu
	over bool          // protected by mu: the port is closed, nothing more comes
	more chan struct{} // protected by mu: closed and replaced when text grows
}

func newConsole(host string, rw io.ReadWriter, logPath string) (*Console, error) {
	f, err := os.Create(logPath)
	if err != nil {
		return nil, err
	}
	c := &Console{host: host, w: rw, more: make(chan struct{})}
	go c.read(rw, f)
	return c, nil
}

func (c *Console) read(r io.Reader, log *os.File) {
	defer log.Close()
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		log.Write(buf[:n]) // a full disk shows elsewhere; the text is kept in memory too
		c.mu.Lock()
		c.text = append(c.text, buf[:n]...)
		c.over = err != nil
		close(c.more)
		c.more = make(chan struct{})
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Len is how many octets the console has printed, for use as from.
func (c *Console) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.text)
}

// Since returns what was printed after the first from octets, and a channel
// that is closed when there is more; the channel is nil when nothing will come.
func (c *Console) Since(from int) ([]byte, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// Text is only appended to, so that the slice stays valid.
	text := c.text[from:len(c.text):len(c.text)]
	if c.over {
		return text, nil
	}
	return text, c.more
}

// WaitFor waits until what was printed after the first from octets matches the
// pattern. It returns the match with its submatches, and where it ends.
func (c *Console) WaitFor(ctx context.Context, from int, pattern string) (match []string, end int, err error) {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, from, err
	}
	for {
		text, more := c.Since(from)
		if m := re.FindSubmatchIndex(text); m != nil {
			for i := 0; i < len(m); i += 2 {
				sub := ""
				if m[i] >= 0 {
					sub = string(text[m[i]:m[i+1]])
				}
				match = append(match, sub)
			}
			return match, from + m[1], nil
		}
		if more == nil {
			return nil, from, fmt.Errorf("host %s died before its console showed %q; last lines:\n%s", c.host, pattern, lastLines(text))
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil, from, fmt.Errorf("console of host %s did not show %q: %w; last lines:\n%s",
				c.host, pattern, context.Cause(ctx), lastLines(text))
		}
	}
}

func lastLines(text []byte) []byte { return text[max(0, len(text)-2000):] }

// Write types on the serial port.
func (c *Console) Write(p []byte) (int, error) { return c.w.Write(p) }

var _ io.Writer = (*Console)(nil)

// inputTo switches the serial input until Xen says that it goes to who. Three
// Ctrl-A switch to the next receiver. See xen/drivers/char/console.c:console_switch_input.
func (c *Console) inputTo(ctx context.Context, who string) error {
	for range 8 {
		from := c.Len()
		if _, err := c.Write([]byte("\x01\x01\x01")); err != nil {
			return err
		}
		m, _, err := c.WaitFor(ctx, from, `Serial input to (\w+)`)
		if err != nil {
			return err
		}
		if m[1] == who {
			return nil
		}
	}
	return fmt.Errorf("host %s: serial input cannot be switched to %s", c.host, who)
}

// DebugKeys types keys to Xen's debug key handler and returns what the console
// showed until it was quiet.
func (c *Console) DebugKeys(ctx context.Context, keys string) (string, error) {
	if err := c.inputTo(ctx, "Xen"); err != nil {
		return "", err
	}
	from := c.Len()
	for _, k := range []byte(keys) {
		if _, err := c.Write([]byte{k}); err != nil {
			return "", err
		}
		for quiet := false; !quiet; {
			_, more := c.Since(0)
			select {
			case <-more:
			case <-time.After(500 * time.Millisecond):
				quiet = true
			case <-ctx.Done():
				return "", context.Cause(ctx)
			}
		}
	}
	text, _ := c.Since(from)
	return string(text), c.inputTo(ctx, "DOM0")
}
