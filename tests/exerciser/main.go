// SPDX-License-Identifier: Apache-2.0

// Exerciser tries every operation of XEN_DOMCTL_kemari_op, with its errors and
// edges, on the hypervisor that it runs on (in dom0, as root):
//
//	exerciser [-run REGEXP] [-list] [-small FILE] [-debian FILE] [-ramdisk FILE]
//
// It makes its own guests through xl, none of which has a device. Most of them boot
// the lab's small kernel, and a few, of which it says so, Debian's. The ramdisk holds
// the demonstration guest of tests/guest. A line is printed for each
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
)

func main() {
	pattern := flag.String("run", "", "only the cases whose names match")
	list := flag.Bool("list", false, "print the names of the cases, and run none")
	flag.StringVar(&smallKernel, "small", "/opt/kemari/guest/small", "the guests' kernel")
	flag.StringVar(&debianKernel, "debian", "/opt/kemari/guest/vmlinux", "the kernel of a few guests")
	flag.StringVar(&ramdisk, "ramdisk", "/opt/kemari/guest/initrd.img", "the guests' initial RAM file system")
	flag.Parse()
	ok, err := run(*pattern, *list)
	if err != nil {
		fmt.Fprintln(os.Stderr, "exerciser:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

func run(pattern string, list bool) (bool, error) {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return false, err
	}
	cases := slices.DeleteFunc(slices.Concat(enableCases, stateCases, eventCases, dirtyCases, memoryCases,
		secondaryCases, recordCases, queueCases, restoreCases, destroyCases, concurrentCases),
		func(c testCase) bool { return !re.MatchString(c.name) })
	if len(cases) == 0 {
		return false, fmt.Errorf("no case has a name that matches %q", pattern)
	}
	if list {
		for _, c := range cases {
			fmt.Println(c.name)
		}
		return true, nil
	}
	h, err := openHost()
	if err != nil {
		return false, err
	}
	defer h.close()
	failed := 0
	for _, c := range cases {
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
