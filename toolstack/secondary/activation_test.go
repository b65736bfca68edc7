// SPDX-License-Identifier: Apache-2.0

package secondary

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
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

func webConfig(t *testing.T) *xlstream.Config {
	t.Helper()
	json, err := os.ReadFile("../shell/xlstream/testdata/pvh.json")
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := xlstream.ParseConfig(json)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// TestSilentXenstored: a guest whose watches could not be set goes on with its
// own store page, over which xenstored first has to begin anew.
func TestSilentXenstored(t *testing.T) {
	d := hosttest.New(t, uuid.New(), "web--kemari", true, kemariop.RoleSecondary)
	op, err := kemariop.New(d.Host.Hypercalls, hosttest.DomID)
	if err != nil {
		t.Fatal(err)
	}
	const storeGFN abi.GFN = 1
	const end = 2048 // of the rings, where the indices begin
	words := make([]uint64, 2*abi.PageSize/8)
	mem := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), 2*abi.PageSize)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	r := &Receiver{
		cfg: Config{Host: d.Host}, log: hclog.NewNullLogger(), ctx: ctx, op: op,
		guest: &xlstream.Guest{Config: webConfig(t), DomID: hosttest.DomID},
		shell: &Shell{mem: guestmem.FromMapping(0, foreignmem.FromBytes(mem))},
	}
	image := make([]byte, abi.PageSize)
	for i := range end {
		image[i] = byte(i)
	}
	stage := &replica.Stage{Always: []stream.AlwaysPage{{Kind: stream.AlwaysStore, GFN: storeGFN, Data: image}}}
	r.replay(stage, []xsreplica.Watch{{Path: "control/shutdown", Token: "FFFF"}})
	page := mem[abi.PageSize:]
	if !bytes.Equal(page[:end+20], image[:end+20]) {
		t.Error("the guest does not find its requests and replies")
	}
	if connection := binary.LittleEndian.Uint32(page[end+20:]); connection != 1 {
		t.Errorf("xenstored is not told to begin anew: connection is %d", connection)
	}
}
