// SPDX-License-Identifier: Apache-2.0

package xenbus

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/kemari-ft/kemari/backend/gate"
	"github.com/kemari-ft/kemari/xen/abi"
)

// stage is a server with everybody it talks to. Its log is what the back end
// did: the transcript.
type stage struct {
	*Server
	store  *memStore
	log    strings.Builder
	refuse string
	broken string
	dead   map[abi.DomID]bool
}

func newStage() *stage {
	st := &stage{dead: map[abi.DomID]bool{}}
	st.store = newMemStore(&st.log)
	st.restart()
	return st
}

// restart is a new daemon on the same store.
func (st *stage) restart() {
	st.Server = NewServer(Config{
		Store: st.store,
		Open: func(d Disk) (Device, error) {
			fmt.Fprintf(&st.log, "open %s, target=%s readonly=%t discard=%t\n", d.ID, d.Target, d.ReadOnly, d.Discard)
			if st.refuse != "" {
				return nil, errors.New(st.refuse)
			}
			return st.device(), nil
		},
		Alive:  func(d abi.DomID) bool { return !st.dead[d] },
		Report: func(err error) { fmt.Fprintf(&st.log, "report: %v\n", err) },
	})
}

func (st *stage) device() *fakeDevice {
	return &fakeDevice{log: &st.log, broken: &st.broken}
}

// settle lets all devices look at the store, as after any event.
func (st *stage) settle() {
	if err := st.pokeAll(); err != nil {
		fmt.Fprintf(&st.log, "report: %v\n", err)
	}
	less := func(a, b ID) int { return int(a.Dom)<<20 + int(a.Handle) - int(b.Dom)<<20 - int(b.Handle) }
	for _, id := range slices.SortedFunc(maps.Keys(st.devices), less) {
		_, err := st.devices[id].settle()
		st.report(id, err)
	}
}

// pairs splits "key=value" lines.
func pairs(input string) (p []pair) {
	for line := range strings.Lines(input) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		p = append(p, pair{k, v})
	}
	return p
}

// do executes one command of a transcript:
//
//	libxl, guest   write key=value lines into the back or front end's directory
//	remove PATH    below the back or front end: back, front
//	refuse, broken set (or, empty, take back) an error of opening or connecting
//	die            the domain dies
//	restart        a new daemon
//	recover        a session wants the disk to be served again
//	attach         take the guest over with the key=value lines
//	fail           the device breaks
//	store          print the back end's nodes
func (st *stage) do(d *datadriven.TestData) string {
	id := ID{Dom: 5, Handle: 51712}
	st.log.Reset()
	switch d.Cmd {
	case "libxl":
		for _, p := range pairs(d.Input) {
			st.store.set(id.backend()+"/"+p.key, p.value)
		}
	case "guest":
		for _, p := range pairs(d.Input) {
			st.store.set(id.frontend()+"/"+p.key, p.value)
		}
	case "remove":
		if d.HasArg("back") {
			st.store.rm(id.backend())
		} else {
			st.store.rm(id.frontend())
		}
	case "refuse":
		st.refuse = d.Input
	case "broken":
		st.broken = d.Input
	case "die":
		st.dead[id.Dom] = true
	case "restart":
		st.restart()
	case "recover":
		if err := st.Recover(id); err != nil {
			fmt.Fprintf(&st.log, "error: %v\n", err)
		}
	case "attach":
		keys := map[string]string{}
		for _, p := range pairs(d.Input) {
			keys[p.key] = p.value
		}
		err := st.Attach(Disk{ID: id, Target: "/dev/vg0/guest", Script: "/etc/xen/scripts/block-kemari", Discard: true},
			st.device(), keys, []gate.Indices{{RspProd: 7, ReqProd: 9}})
		if err != nil {
			fmt.Fprintf(&st.log, "error: %v\n", err)
		}
	case "fail":
		if err := st.Fail(id, errors.New(d.Input)); err != nil {
			fmt.Fprintf(&st.log, "error: %v\n", err)
		}
	case "store":
		for _, k := range slices.Sorted(maps.Keys(st.store.nodes)) {
			if rest, ok := strings.CutPrefix(k, id.backend()+"/"); ok {
				fmt.Fprintf(&st.log, "%s = %q\n", rest, st.store.nodes[k])
			}
		}
		return st.log.String()
	default:
		return "no such command\n"
	}
	st.settle()
	// The reader knows which device it is.
	out := strings.NewReplacer(id.backend(), "BACK", id.frontend(), "FRONT").Replace(st.log.String())
	if out == "" {
		return "(nothing)\n"
	}
	return out
}

// The transcripts in testdata are the hand-shake, told from the back end's
// side. Rewrite them with -rewrite, and commit the changes only if you
// understand what caused them.
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata/transcript", func(t *testing.T, path string) {
		st := newStage()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string { return st.do(d) })
	})
}
