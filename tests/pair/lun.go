// SPDX-License-Identifier: Apache-2.0

package pair

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"github.com/kemari-ft/kemari/tools/lab/nbd"
)

// LUNReport is what the log of a shared disk says about a failover.
type LUNReport struct {
	Before   int // writes of the old host that landed
	After    int // writes of the new host that landed
	Pending  int // requests of the old host that were never answered
	Repeated int // ranges that both hosts wrote, with the same data
}

type extent struct {
	off uint64
	n   uint32
}

// JudgeLUN reads the log of a failover from one host to another. The guest must
// be one that never writes a place twice and puts something into each record
// that differs from try to try, such as the time: then a write of an epoch that
// was never committed shows, since the guest comes to that place again and
// writes something else.
//
//   - Nothing of the old host lands after the new one's first write.
//   - What both wrote to one place is the same data.
//   - What the old host had asked for and was not told to be done, the new one
//     asks for again, once.
func JudgeLUN(log []nbd.Event, from, to string) (LUNReport, error) {
	var r LUNReport
	var errs []error
	wrong := func(format string, args ...any) {
		if len(errs) < 20 {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	var lastOld, firstNew uint64
	old := map[extent][sha256.Size]byte{}
	fresh := map[extent]int{}
	var pending []nbd.Event
	for _, e := range log {
		if e.Op != nbd.Write {
			continue
		}
		at := extent{e.Offset, e.Length}
		switch e.Host {
		case from:
			if e.Landed != 0 {
				r.Before++
				lastOld = max(lastOld, e.Landed)
			}
			if !e.Answered {
				r.Pending++
				pending = append(pending, e)
			}
			// Also one that has not landed was let out by its host.
			if was, twice := old[at]; twice && was != e.Hash {
				wrong("host %s wrote %d octets at %#x twice, with different data", from, at.n, at.off)
			}
			old[at] = e.Hash
		case to:
			if e.Landed != 0 {
				r.After++
				if firstNew == 0 || e.Landed < firstNew {
					firstNew = e.Landed
				}
			}
			fresh[at]++
			if was, both := old[at]; both {
				r.Repeated++
				if was != e.Hash {
					wrong("%d octets at %#x: host %s wrote them before the commit, for host %s writes something else", at.n, at.off, from, to)
				}
			}
		}
	}
	if firstNew != 0 && lastOld > firstNew {
		wrong("a write of host %s landed after the first one of host %s", from, to)
	}
	for _, e := range pending {
		if n := fresh[extent{e.Offset, e.Length}]; n != 1 {
			wrong("the request for %d octets at %#x that host %s left behind was executed %d times on host %s; all writes there: %s", e.Length, e.Offset, from, n, to, overlapping(log, e))
		}
	}
	return r, errors.Join(errs...)
}

// overlapping describes all writes to where one of them went.
func overlapping(log []nbd.Event, with nbd.Event) string {
	var b strings.Builder
	for _, e := range log {
		if e.Op == nbd.Write && e.Offset < with.Offset+uint64(with.Length) && with.Offset < e.Offset+uint64(e.Length) {
			fmt.Fprintf(&b, "[host %s, %d octets at %#x, landed %d, answered %v, %x]", e.Host, e.Length, e.Offset, e.Landed, e.Answered, e.Hash[:4])
		}
	}
	return b.String()
}
