// SPDX-License-Identifier: Apache-2.0

// Streamverify reads one direction of a recorded Kemari stream and checks it
// against docs/stream.md.  It shares no code with package stream, so that the
// document is what both were written from.
//
//	streamverify [FILE]
//
// Without FILE it reads standard input.  It prints a line for each epoch and
// exits with status 1 if the stream breaks a rule.
package main

import (
	"fmt"
	"io"
	"os"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "streamverify:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	switch len(args) {
	case 0:
	case 1:
		f, err := os.Open(args[0])
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	default:
		return fmt.Errorf("usage: streamverify [FILE]")
	}
	return verify(in, out)
}
