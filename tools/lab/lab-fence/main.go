// SPDX-License-Identifier: Apache-2.0

// lab-fence asks the lab's power controller to take another host's power away:
//
//	lab-fence HOST          fence; status 0 only when the host is off and drained
//	lab-fence --status HOST print on or off
//
// It is what a fence agent for IPMI is on real hosts.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/kemari-ft/kemari/tools/lab/vport"
)

func main() {
	verb, args := "off", os.Args[1:]
	if len(args) == 2 && args[0] == "--status" {
		verb, args = "status", args[1:]
	}
	if len(args) != 1 || strings.ContainsAny(args[0], " \n") {
		fmt.Fprintln(os.Stderr, "usage: lab-fence [--status] HOST")
		os.Exit(2)
	}
	answer, err := ask(verb + " " + args[0])
	if err != nil {
		fmt.Fprintf(os.Stderr, "lab-fence: %s: %v\n", args[0], err)
		os.Exit(1)
	}
	if answer != "" {
		fmt.Println(answer)
	}
}

func ask(request string) (string, error) {
	f, err := open()
	if err != nil {
		return "", err
	}
	defer f.Close()
	if _, err := f.WriteString(request + "\n"); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(f).ReadString('\n')
	if err != nil {
		return "", err
	}
	verdict, text, _ := strings.Cut(strings.TrimSpace(line), " ")
	if verdict != "ok" {
		return "", errors.New(text)
	}
	return text, nil
}

// open waits for its turn: the kernel lets one process open a port.
func open() (*os.File, error) {
	for {
		f, err := vport.Open("org.kemari.fence")
		if !errors.Is(err, syscall.EBUSY) {
			return f, err
		}
		time.Sleep(50 * time.Millisecond)
	}
}
