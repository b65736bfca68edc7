// SPDX-License-Identifier: Apache-2.0

package shell

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kemari-ft/kemari/xen/abi"
)

// Tools says where xl and its files are.  The zero value has Debian's.
type Tools struct {
	XL  string // "" is "xl", found by PATH
	Lib string // "" is /var/lib/xen (XEN_LIB_DIR)
}

func (t Tools) lib() string {
	if t.Lib == "" {
		return "/var/lib/xen"
	}
	return t.Lib
}

// Error is a run of xl that failed, with what xl said.
type Error struct {
	Args   []string
	Domain abi.DomID
	Output string // the end of what xl wrote to stderr and stdout
	Err    error
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "domain %d: xl %s: %v", uint16(e.Domain), strings.Join(e.Args, " "), e.Err)
	if e.Output != "" {
		fmt.Fprintf(&b, ": xl said: %s", strings.Join(strings.Split(e.Output, "\n"), "; "))
	}
	for _, h := range hints {
		if strings.Contains(e.Output, h.said) {
			fmt.Fprintf(&b, " (%s)", h.hint)
		}
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// hints tell the operator what to do about libxl's more laconic messages.
var hints = []struct{ said, hint string }{
	{"domain id recently used", "a domain with this id was destroyed this very second; try again"},
	{"domain creation fail: File exists", "the domid is in use on this host; create guests with domid_policy=\"random\" in xl.conf on both hosts"},
	{"already exists", "rename or destroy the domain of that name on this host"},
	{"failed to free memory", "this host has too little free memory; give domain 0 less or stop a guest"},
	{"cannot be accessed", "is oxenstored running?"},
	{"Failed to set CPUID policy", "the processor of this host lacks features that the guest was given"},
}

// run runs xl.  LIBXL_DOMID_REUSE_TIMEOUT=0 lets it use a domid again at once;
// otherwise libxl refuses one for a minute after a domain that had it died, and
// a shell could not be rebuilt (tools/libs/light/libxl_domain.c:
// libxl__get_domid_reuse_timeout()).
func (t Tools) run(ctx context.Context, dom abi.DomID, stdin io.Reader, args ...string) (string, error) {
	xl := t.XL
	if xl == "" {
		xl = "xl"
	}
	cmd := exec.CommandContext(ctx, xl, args...)
	cmd.Env = append(os.Environ(), "LIBXL_DOMID_REUSE_TIMEOUT=0")
	cmd.Stdin = stdin
	out := &tail{}
	cmd.Stdout, cmd.Stderr = out, out
	// The monitor that xl leaves behind has its own output; a stray child
	// that still holds the pipe must not hold us.
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	said := strings.TrimSpace(out.String())
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return said, &Error{Args: args, Domain: dom, Output: said, Err: err}
	}
	return said, nil
}

func domArg(dom abi.DomID) string { return strconv.Itoa(int(dom)) }

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailMax = 8 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - tailMax; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}
