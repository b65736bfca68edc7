// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/kemari-ft/kemari/toolstack/lease"
	"github.com/kemari-ft/kemari/toolstack/stream"
)

// TestTranscripts plays the files of testdata/transcripts against one machine each.  They
// are documentation: go test -rewrite changes them, and such a change is only
// to be committed by someone who understands what caused it.
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata/transcripts", func(t *testing.T, path string) {
		var step func(Event) []Action
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			num := func(key string) uint64 {
				var v uint64
				if d.HasArg(key) {
					d.ScanArgs(t, key, &v)
				}
				return v
			}
			var actions []Action
			if d.Cmd == "primary" || d.Cmd == "secondary" {
				rec := lease.Record{}
				if d.HasArg("phase") {
					var phase string
					d.ScanArgs(t, "phase", &phase)
					rec = lease.Record{Guest: guestID, Role: lease.Role(d.Cmd), Generation: num("gen"), Phase: lease.Phase(phase), Epoch: num("epoch")}
				}
				if d.Cmd == "primary" {
					p := NewPrimary(guestID, rec)
					step, actions = p.Step, p.Start()
				} else {
					step = NewSecondary(guestID, true, rec).Step
				}
			} else {
				actions = step(parseEvent(t, d, num))
			}
			return show(actions)
		})
	})
}

func parseEvent(t *testing.T, d *datadriven.TestData, num func(string) uint64) Event {
	conn, gen, epoch := num("conn"), num("gen"), num("epoch")
	switch d.Cmd {
	case "hello":
		return PeerHello{conn, &stream.Hello{Guest: guestID, Generation: gen, Epoch: epoch}}
	case "disconnected":
		return Disconnected{conn, errors.New("connection reset by peer")}
	case "judged":
		for v := lease.Alive; v <= lease.Dead; v++ {
			if strings.ReplaceAll(v.String(), " ", "-") == d.CmdArgs[0].Key {
				return PeerJudged{v}
			}
		}
	case "fenced":
		if d.HasArg("fails") {
			return FenceDone{errors.New("IPMI: no answer")}
		}
		return FenceDone{}
	case "peer-is-off":
		return PeerIsOff{}
	case "shell":
		return ShellDescribed{conn, &stream.Shell{}}
	case "shell-fails":
		return ShellFailed{errors.New("cannot map gfn 0x1000 of d7: no memory")}
	case "epoch":
		return EpochArrived{conn, makeEpoch(SendEpoch{Generation: gen, Epoch: epoch}, epoch)}
	case "applied":
		return EpochApplied{gen, epoch}
	case "torn":
		return StreamDropped{conn, &stream.Error{Record: 12, Type: stream.TypePages, Offset: 4711, Err: stream.ErrTorn}}
	case "discard":
		return DiscardAsked{conn, gen}
	case "let-go":
		return PeerLetGo{conn, gen, epoch}
	case "end":
		reason := stream.ReasonPoweroff
		if d.HasArg("reboot") {
			reason = stream.ReasonReboot
		}
		return GuestGone{conn, gen, reason}
	case "lease-expired":
		return PeerLeaseExpired{}
	case "protect":
		return Protect{}
	case "connected":
		return Connected{conn}
	case "copy-round":
		return CopyRound{}
	case "harvested":
		return Harvested{}
	case "ack":
		return Acked{conn, gen, epoch}
	case "discarded":
		return PeerDiscarded{conn, gen}
	case "refused":
		return PeerRefused{conn, d.HasArg("taken-over"), []string{"the name web1 is taken there"}}
	case "unprotect":
		return Unprotect{}
	case "resync":
		return Resync{}
	case "hand-over":
		return HandOver{}
	case "guest-ends":
		return GuestEnded{stream.ReasonPoweroff}
	}
	t.Fatalf("%s: unknown event %q", d.Pos, d.Cmd)
	return nil
}

func show(actions []Action) string {
	if len(actions) == 0 {
		return "nothing\n"
	}
	var b strings.Builder
	for _, a := range actions {
		switch a := a.(type) {
		case Persist:
			fmt.Fprintf(&b, "Persist generation %d: %s", a.Record.Generation, a.Record.Phase)
			if a.Record.Epoch != 0 {
				fmt.Fprintf(&b, " at epoch %d", a.Record.Epoch)
			}
		case Report:
			fmt.Fprintf(&b, "Report: %s", a.Text)
		case Apply:
			fmt.Fprintf(&b, "Apply epoch %d", a.Epoch.Number)
		case BuildShell:
			b.WriteString("BuildShell")
		default:
			fmt.Fprintf(&b, "%s", name(a))
		}
		b.WriteString("\n")
	}
	return b.String()
}
