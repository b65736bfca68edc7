// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

// Guest is the demonstration guest: the /init of an initramfs that keeps a
// chain of hashes in memory, writes numbered records to its disk, watches its
// clocks and measures how long it was kept from running, and that answers for
// all of it over the console. It knows nothing of Kemari: it is the witness.
//
// On the kernel's command line:
//
//	guest.table_mib=N  size of the chain's table, default 1
//	guest.tick_ms=N    interval of ticks, default 1000
//	guest.disk=DEV     disk to write to; default /dev/xvda if Xen gives a disk
//
// On the console, one command a line; every answer is one line:
//
//	status [QUESTION]               "status " and check.Status in JSON
//	verify [QUESTION]               "verify " and check.Verify in JSON
//	load idle|cpu|disk|mem=R[,SET]  mem writes R MiB/s of pages over SET MiB
//	gaps on|off|reset               the gap meter
//	poweroff, reboot
//
// Debian's cloud kernel takes some 50 MiB for itself: give the guest 80 MiB or
// more, and twice the chain's table on top. With the lab's small kernel 48 MiB do; with
// 40 it finds no memory to start this program.
//
// Ticks are check.Tick lines. A line that begins with "error " is a complaint.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	// The kernel's orderly_poweroff() and orderly_reboot() start these by name
	// (kernel/reboot.c); Xen's shutdown watch calls both (drivers/xen/manage.c).
	switch filepath.Base(os.Args[0]) {
	case "poweroff":
		ask(unix.SIGTERM, unix.LINUX_REBOOT_CMD_POWER_OFF)
	case "reboot":
		ask(unix.SIGINT, unix.LINUX_REBOOT_CMD_RESTART)
	}
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "guest: this is the init of the demonstration guest; it runs as process 1 only")
		os.Exit(1)
	}
	// The runtime reads GODEBUG before main. Its preemption signals would end the
	// meter's sleep.
	if os.Getenv("GODEBUG") != "asyncpreemptoff=1" {
		os.Setenv("GODEBUG", "asyncpreemptoff=1")
		if err := syscall.Exec("/init", os.Args, os.Environ()); err != nil {
			fmt.Fprintf(os.Stderr, "error execute /init again without preemption signals: %v\n", err)
		}
	}
	err := run()
	fmt.Fprintf(os.Stderr, "error the guest's init failed: %v\n", err)
	select {} // process 1 must not exit: the kernel would panic over the message
}

// ask hands the request to process 1, which finishes its writes first, and does
// it itself when process 1 does not.
func ask(sig unix.Signal, cmd int) {
	if err := unix.Kill(1, sig); err == nil {
		time.Sleep(10 * time.Second)
	}
	err := unix.Reboot(cmd)
	fmt.Fprintf(os.Stderr, "error reboot(%#x): %v\n", cmd, err)
	os.Exit(1)
}

func run() error {
	if err := mounts(); err != nil {
		return err
	}
	vcpus, err := onlineCPUs()
	if err != nil {
		return err
	}
	// Every loop that never yields (meter, cpu load) keeps one P for itself.
	runtime.GOMAXPROCS(vcpus + 6)
	// A collection would be a gap and dirty pages. What the guest allocates
	// while it runs is small; the limit makes it collect before it dies of it.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(24 << 20)

	tty, err := openConsole()
	if err != nil {
		return err
	}
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF); err != nil {
		tty.complain(fmt.Errorf("have ctrl-alt-del sent as SIGINT: %w", err))
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT)

	for _, err := range loadModules("/modules") {
		tty.complain(err)
	}
	raw, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	p, err := parseParams(string(raw))
	if err != nil {
		tty.complain(err) // the defaults stand
	}
	g, err := newGuest(tty, vcpus, p)
	if err != nil {
		return err
	}
	if err := pinAll(0); err != nil {
		tty.complain(err)
	}
	g.start()
	go tty.commands(g)
	if s := <-signals; s == unix.SIGINT {
		return g.shutdown(unix.LINUX_REBOOT_CMD_RESTART)
	}
	return g.shutdown(unix.LINUX_REBOOT_CMD_POWER_OFF)
}
