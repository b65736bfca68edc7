// SPDX-License-Identifier: Apache-2.0

package secondary

import (
	"context"
	"encoding/binary"
	"testing"
	"unsafe"

	"github.com/google/uuid"
	"github.com/hashicorp/go-hclog"
	"github.com/kemari-ft/kemari/toolstack/guestmem"
	"github.com/kemari-ft/kemari/toolstack/replica"
	"github.com/kemari-ft/kemari/toolstack/secondary/hosttest"
	"github.com/kemari-ft/kemari/toolstack/shell/xlstream"
	"github.com/kemari-ft/kemari/toolstack/stream"
	"github.com/kemari-ft/kemari/toolstack/xsreplica"
	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/foreignmem"
	"github.com/kemari-ft/kemari/xen/kemariop"
)

// TestSilentXenstored: a guest whose watches could not be set goes on with its
// own store page, over which xenstored first has to begin anew.
func TestSilentXenstored(t *testing.T) {
	d := hosttest.New(t, uuid.New(), "web--kemari", true, kemariop.RoleSecondary)
	op, err := kemariop.New(d.Host.Hypercalls, hosttest.DomID)
	if err != nil {
		t.Fatal(err)
	}
	const storeGFN abi.GFN = 1
	words := make([]uint64, 2*abi.PageSize/8)
	mem := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), 2*abi.PageSize)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	r := &Receiver{
		cfg: Config{Host: d.Host}, log: hclog.NewNullLogger(), ctx: ctx, op: op,
		guest: &xlstream.Guest{DomID: hosttest.DomID},
		shell: &Shell{mem: guestmem.FromMapping(0, foreignmem.FromBytes(mem))},
	}
	image := make([]byte, abi.PageSize)
	for i := range 2048 {
		image[i] = byte(i)
	}
	stage := &replica.Stage{Always: []stream.AlwaysPage{{Kind: stream.AlwaysStore, GFN: storeGFN, Data: image}}}
	r.replay(stage, []xsreplica.Watch{{Path: "control/shutdown", Token: "FFFF"}})
	page := mem[abi.PageSize:]
	if string(page[:2048+20]) != string(image[:2048+20]) {
		t.Error("the guest does not find its requests and replies")
	}
	if connection := binary.LittleEndian.Uint32(page[2048+20:]); connection != 1 {
		t.Errorf("xenstored is not told to begin anew: connection is %d", connection)
	}
}
