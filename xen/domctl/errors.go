// SPDX-License-Identifier: Apache-2.0

package domctl

import (
	"fmt"
	"strings"
	"syscall"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/internal/sys"
)

// Error is a refused operation on a domain; errors.Is matches its Errno.
type Error struct {
	Op    string
	Dom   abi.DomID // abi.DomIDSelf: the operation is not about a domain
	Errno syscall.Errno
	Hint  string // what the operator can do, or empty
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Dom != abi.DomIDSelf {
		fmt.Fprintf(&b, " of %s", e.Dom)
	}
	fmt.Fprintf(&b, ": Xen answered %s", sys.Describe(e.Errno))
	if e.Hint != "" {
		b.WriteString("; " + e.Hint)
	}
	return b.String()
}

// Unwrap returns the errno.
func (e *Error) Unwrap() error { return e.Errno }

// GrantTableError is a grant table operation that Xen took but did not do.
type GrantTableError struct {
	Op     string
	Dom    abi.DomID
	Status abi.GrantStatus
}

func (e *GrantTableError) Error() string {
	return fmt.Sprintf("%s of %s: Xen answered %s", e.Op, e.Dom, e.Status)
}

// PartialError is a memory operation of which only the first Done of Total
// pages were carried out: Xen reports no errno for these.
type PartialError struct {
	Op          string
	Dom         abi.DomID
	Done, Total int
	Next        abi.GFN // the first one refused
}

func (e *PartialError) Error() string {
	return fmt.Sprintf("%s of %s: Xen stopped after %d of %d pages, at gfn %#x; "+
		"the host may be out of memory (xl info), the domain at its limit, or the gfn not acceptable (xl dmesg)",
		e.Op, e.Dom, e.Done, e.Total, uint64(e.Next))
}

// err makes an *Error, or nil if errno is 0.
func (c *Client) err(op string, dom abi.DomID, errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	e := &Error{Op: op, Dom: dom, Errno: errno}
	switch {
	case errno == syscall.EACCES && strings.HasPrefix(op, "domctl "):
		e.Hint = notAllowed("domctl", abi.DomctlInterfaceVersion, "Xen 4.19 and 4.20")
	case errno == syscall.EACCES && strings.HasPrefix(op, "sysctl "):
		e.Hint = notAllowed("sysctl", abi.SysctlInterfaceVersion, "Xen 4.17 to 4.20")
	case errno == syscall.ESRCH:
		e.Hint = "there is no such domain (xl list)"
	case errno == syscall.EPERM:
		e.Hint = "the calling domain is not privileged"
	}
	return e
}

// notAllowed explains EACCES: do_domctl() and do_sysctl() compare the version before
// anything else, and XSM answers so, too.
func notAllowed(hypercall string, version uint32, releases string) string {
	return fmt.Sprintf("this program speaks %s interface %#x (%s): the running Xen another one, or its security policy does not allow it (xl dmesg)",
		hypercall, version, releases)
}
