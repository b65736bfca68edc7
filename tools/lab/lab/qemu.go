// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// cpuModel avoids what breaks Xen under QEMU's emulation: SMAP crashes the PV
// dom0 in create_bounce_frame, MONITOR faults in mwait_idle_with_hints, the
// XSAVE layout of newer models is inconsistent, and an emulated TSC reads
// RDTSCP as RDTSC. NPT keeps Xen off shadow paging. The rest is what the
// emulation makes cheap, so that it does not dominate what is measured: a page
// is encrypted with AES's instructions in 27 us, without them in 210; but its
// CRC-32C takes 40 us with SSE 4.2 and 7 without. Without RDRAND dom0 has no
// entropy for its first minutes, and libuuid waits for some: each xl create took
// two seconds longer.
const cpuModel = "qemu64,+svm,+npt,-monitor,-rdtscp,+aes,+pclmulqdq,+ssse3,+sse4.1,+popcnt,+rdrand"

// A machine is one QEMU process, dead or alive.
type machine struct {
	cmd  *exec.Cmd
	args []string
	// files are QEMU's ends of our socket pairs, passed on by number. Pairs
	// need no names, no waiting for a listener and no cleaning up.
	files []*os.File
	conns []net.Conn // our ends

	dead chan struct{} // closed when the process was waited for
	err  error         // how it ended; valid after dead
	kill sync.Once
}

func newMachine() *machine { return &machine{dead: make(chan struct{})} }

func (m *machine) add(args ...string) { m.args = append(m.args, args...) }

// pair makes a stream socket pair and returns our end and the number that
// QEMU knows its end by.
func (m *machine) pair(name string) (net.Conn, int, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, 0, fmt.Errorf("socket pair for %s: %w", name, err)
	}
	ours := os.NewFile(uintptr(fds[0]), name)
	defer ours.Close() // net.FileConn duplicates it
	m.files = append(m.files, os.NewFile(uintptr(fds[1]), name))
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, 0, fmt.Errorf("socket pair for %s: %w", name, err)
	}
	m.conns = append(m.conns, conn)
	return conn, 2 + len(m.files), nil // exec.Cmd.ExtraFiles begin at 3
}

// chardev makes a character device that we hold the other end of.
func (m *machine) chardev(id string) (net.Conn, error) {
	conn, fd, err := m.pair(id)
	if err == nil {
		m.add("-chardev", fmt.Sprintf("socket,id=%s,fd=%d", id, fd))
	}
	return conn, err
}

// start starts QEMU; what it says itself goes to logPath.
func (m *machine) start(qemu []string, dir, logPath string) error {
	log, err := os.Create(logPath)
	if err != nil {
		return err
	}
	defer log.Close()
	m.cmd = exec.Command(qemu[0], slices.Concat(qemu[1:], m.args)...)
	m.cmd.Dir = dir
	m.cmd.Stdout, m.cmd.Stderr = log, log
	m.cmd.ExtraFiles = m.files
	// A lab that dies takes its hosts along.
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	fmt.Fprintln(log, strings.Join(m.cmd.Args, " "))

	started := make(chan error)
	go func() {
		// Pdeathsig means the death of the thread that started the process,
		// so this thread must live as long as the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := m.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		m.err = m.cmd.Wait()
		close(m.dead)
	}()
	err = <-started
	m.closeTheirs()
	if err != nil {
		m.close()
	}
	return err
}

func (m *machine) closeTheirs() {
	for _, f := range m.files {
		f.Close()
	}
	m.files = nil
}

// close closes all ends.
func (m *machine) close() {
	m.closeTheirs()
	for _, c := range m.conns {
		c.Close()
	}
}

// cut is the loss of power: the process is gone when it returns.
func (m *machine) cut() {
	// A kill fails only for a process that was waited for already.
	m.kill.Do(func() { _ = m.cmd.Process.Kill() })
	<-m.dead
	m.close()
}
