// SPDX-License-Identifier: Apache-2.0

package kemariop

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/internal/sys"
)

// Errors that *Error matches beside its Errno.
var (
	// ErrUnsupported: the running hypervisor does not have the Kemari patch, or
	// was built without CONFIG_KEMARI.
	ErrUnsupported = errors.New("the running Xen has no Kemari support")
	// ErrVersion: it implements another version of the interface.
	ErrVersion = errors.New("the running Xen has another version of the Kemari interface")
)

// Error is a refused operation.
type Error struct {
	Op      string
	Dom     abi.DomID
	Errno   syscall.Errno
	Version uint32 // of the hypervisor's interface, if known to differ

	op uint32
}

func newError(op uint32, dom abi.DomID, errno syscall.Errno) *Error {
	return &Error{Op: opNames[op], Dom: dom, Errno: errno, op: op}
}

var opNames = [...]string{
	opEnable: "enable", opDisable: "disable", opTap: "tap", opSync: "sync", opRelease: "release",
	opDeliver: "deliver", opSetState: "set_state", opResume: "resume", opStatus: "status",
	opHot: "hot", opWarm: "warm",
}

func (e *Error) Error() string {
	s := fmt.Sprintf("kemari %s of %s: Xen answered %s", e.Op, e.Dom, sys.Describe(e.Errno))
	if h := e.Hint(); h != "" {
		s += "; " + h
	}
	return s
}

// Unwrap returns the errno, and ErrUnsupported or ErrVersion if it means that.
func (e *Error) Unwrap() []error {
	switch {
	case e.unsupported():
		return []error{e.Errno, ErrUnsupported}
	case e.version():
		return []error{e.Errno, ErrVersion}
	}
	return []error{e.Errno}
}

// unsupported: Status works on every domain of a patched hypervisor, so any of
// the answers to an unknown domctl means that there is no patch. Other
// operations have their own uses of EOPNOTSUPP and EINVAL.
func (e *Error) unsupported() bool {
	switch e.Errno {
	case syscall.ENOSYS:
		return true
	case syscall.EOPNOTSUPP, syscall.EINVAL:
		return e.op == opStatus
	}
	return false
}

// version: only Enable names the version of this interface; any other domctl
// answers EACCES for a version of the domctl interface alone.
func (e *Error) version() bool {
	return e.Errno == syscall.EACCES && (e.op == opEnable || e.Version != 0)
}

// Hint says what the errno means for this operation and what to do; it may be
// empty. See the comments of the operations in kemari.h.
func (e *Error) Hint() string {
	switch {
	case e.unsupported():
		return "boot a Xen with the Kemari patches and CONFIG_KEMARI"
	case e.Errno == syscall.EACCES && e.Version != 0:
		return fmt.Sprintf("it implements Kemari interface %d, this program %d; install matching versions", e.Version, InterfaceVersion)
	case e.version():
		return fmt.Sprintf("it does not implement Kemari interface %d; install matching versions", InterfaceVersion)
	case e.Errno == syscall.EACCES:
		return fmt.Sprintf("this program speaks domctl interface %#x: the running Xen another one, or its security policy does not allow it (xl dmesg)", abi.DomctlInterfaceVersion)
	case e.Errno == syscall.ESRCH:
		return "there is no such domain (xl list)"
	}
	return hints[hintKey{e.op, e.Errno}]
}

type hintKey struct {
	op    uint32
	errno syscall.Errno
}

var hints = map[hintKey]string{
	{opEnable, syscall.EBUSY}:        "the domain is protected already, or another tool uses log-dirty mode (xl save, xl migrate)",
	{opEnable, syscall.EOPNOTSUPP}:   "the domain uses something that cannot be synchronised (often: it was not created with max_grant_version=1); xl dmesg names it",
	{opEnable, syscall.E2BIG}:        "the domain has too many event channel ports",
	{opEnable, syscall.EINVAL}:       "bad role or dirty list size, or Xen has no Kemari support",
	{opEnable, syscall.ENOMEM}:       "not enough free memory for the dirty list (xl info)",
	{opSync, syscall.EBUSY}:          "an epoch is still uncommitted, or not released",
	{opSync, syscall.EAGAIN}:         "the guest is starting a processor and goes on running; try again",
	{opRelease, syscall.EILSEQ}:      "the epoch is not that of the last sync",
	{opRelease, syscall.EINVAL}:      "the domain is not in a state to be released that way",
	{opHot, syscall.E2BIG}:           "more pages than Xen takes, or as many as would trigger a sync",
	{opSetState, syscall.EINVAL}:     "a record is malformed; the domain has to be destroyed",
	{opSetState, syscall.EOPNOTSUPP}: "a record is unknown; the domain has to be destroyed",
	{opSetState, syscall.EEXIST}:     "a port is in use for something else; the domain has to be destroyed",
	{opSetState, syscall.EXDEV}:      "a gfn is not RAM; the domain has to be destroyed",
	{opSetState, syscall.EBUSY}:      "the state was set before; the domain has to be destroyed",
}
