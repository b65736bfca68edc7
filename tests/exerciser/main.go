// SPDX-License-Identifier: Apache-2.0

// Exerciser tries every operation of XEN_DOMCTL_kemari_op, with its errors and
// edges, on the hypervisor that it runs on (in dom0, as root):
//
//	exerciser [-run REGEXP] [-part I/N] [-kernel FILE] [-ramdisk FILE]
//
// It makes its own guests through xl, none of which has a device. The ramdisk
// holds the demonstration guest of tests/guest. A line is printed for each
// case, and the exit status is 1 if one failed:
//
//	ok NAME
//	skip NAME: REASON
//	FAIL NAME: got ..., want ...
//
// A domain that is left behind by a failed case has a name that begins with
// "exerciser-".
package main

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

func main() {
	pattern := flag.String("run", "", "only the cases whose names match")
	var p share
	flag.TextVar(&p, "part", share{1, 1}, "only every Nth case, from the Ith on: N hosts share the work")
	flag.StringVar(&kernel, "kernel", "/opt/kemari/guest/vmlinux", "the guests' kernel")
	flag.StringVar(&ramdisk, "ramdisk", "/opt/kemari/guest/initrd.img", "the guests' initial RAM file system")
	flag.Parse()
	ok, err := run(*pattern, p)
	if err != nil {
		fmt.Fprintln(os.Stderr, "exerciser:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// share is which of the cases are run: the ith and every nth after it.
type share struct{ i, n int }

func (p share) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%d/%d", p.i, p.n), nil }

func (p *share) UnmarshalText(text []byte) error {
	i, n, _ := strings.Cut(string(text), "/")
	var err1, err2 error
	p.i, err1 = strconv.Atoi(i)
	p.n, err2 = strconv.Atoi(n)
	if err1 != nil || err2 != nil || p.i < 1 || p.i > p.n {
		return fmt.Errorf("%q is no part; the first of two is 1/2", text)
	}
	return nil
}

func run(pattern string, p share) (bool, error) {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return false, err
	}
	h, err := openHost()
	if err != nil {
		return false, err
	}
	defer h.close()
	failed := 0
	for i, c := range slices.Concat(enableCases, stateCases, eventCases, dirtyCases, memoryCases,
		secondaryCases, recordCases, queueCases, restoreCases, destroyCases, concurrentCases) {
		if i%p.n != p.i-1 || !re.MatchString(c.name) {
			continue
		}
		switch bad, skipped := c.try(h); {
		case len(bad) > 0:
			failed++
			for _, b := range bad {
				fmt.Printf("FAIL %s: %s\n", c.name, b)
			}
		case skipped != "":
			fmt.Printf("skip %s: %s\n", c.name, skipped)
		default:
			fmt.Printf("ok %s\n", c.name)
		}
	}
	return failed == 0, nil
}
