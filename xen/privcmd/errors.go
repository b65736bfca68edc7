// SPDX-License-Identifier: Apache-2.0

package privcmd

import (
	"fmt"
	"syscall"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/internal/sys"
)

// Error is a failed hypercall. errors.Is matches its Errno.
type Error struct {
	Op    uint64 // hypercall number
	Errno syscall.Errno
}

func (e *Error) Error() string {
	return fmt.Sprintf("hypercall %s: Xen answered %s", opName(e.Op), sys.Describe(e.Errno))
}

// Unwrap returns the errno.
func (e *Error) Unwrap() error { return e.Errno }

func opName(op uint64) string {
	switch op {
	case abi.HypervisorMemoryOp:
		return "memory_op"
	case abi.HypervisorXenVersion:
		return "xen_version"
	case abi.HypervisorGrantTableOp:
		return "grant_table_op"
	case abi.HypervisorSchedOp:
		return "sched_op"
	case abi.HypervisorEventChannelOp:
		return "event_channel_op"
	case abi.HypervisorHVMOp:
		return "hvm_op"
	case abi.HypervisorSysctl:
		return "sysctl"
	case abi.HypervisorDomctl:
		return "domctl"
	}
	return fmt.Sprint(op)
}
