// SPDX-License-Identifier: Apache-2.0

package primary

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/kemari-ft/kemari/toolstack/config"
	"github.com/kemari-ft/kemari/toolstack/secondary/hosttest"
	"github.com/kemari-ft/kemari/toolstack/shell/xlstream"
	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/kemariop"
)

// runningGuest is a session for a guest that xl has created, with its configuration
// edited.
func runningGuest(t *testing.T, edit *strings.Replacer) (*hosttest.Domain, *Session) {
	t.Helper()
	json, err := os.ReadFile("../shell/xlstream/testdata/pvh.json")
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := xlstream.ParseConfig(json)
	if err != nil {
		t.Fatal(err)
	}
	guest := uuid.MustParse(cfg.UUID())
	d := hosttest.New(t, guest, cfg.Name(), false, kemariop.RoleNone)
	d.Host.Config = config.Default()
	d.Oxenstored = true
	// See libxl__userdata_path() in tools/libs/light/libxl_dom.c.
	file := filepath.Join(d.Dir, fmt.Sprintf("userdata-d.%d.%s.libxl-json", uint16(hosttest.DomID), guest))
	if err := os.WriteFile(file, []byte(edit.Replace(string(json))), 0o600); err != nil {
		t.Fatal(err)
	}
	s := New(Config{Host: d.Host, Dom: hosttest.DomID, Guest: guest, Name: cfg.Name()})
	t.Cleanup(s.measure.counters.close)
	if s.op, err = kemariop.New(d.Host.Hypercalls, hosttest.DomID); err != nil {
		t.Fatal(err)
	}
	return d, s
}

// TestEveryReasonBeforeXenIsAsked: what keeps a running guest from being protected is
// said at once, whoever knows it, and before Xen holds the guest's output.
func TestEveryReasonBeforeXenIsAsked(t *testing.T) {
	d, s := runningGuest(t, strings.NewReplacer(
		`"target_memkb": 131072`, `"target_memkb": 65536`, `"on_reboot"`, `"nics": [ { "devid": 0 } ], "on_reboot"`))
	home := fmt.Sprintf("/local/domain/%d/device/", uint16(hosttest.DomID))
	d.Nodes = map[string]string{
		home + "vif/0/backend":  "/local/domain/3/backend/vif/4242/0",
		home + "9pfs/0/backend": "/local/domain/0/backend/9pfs/4242/0",
	}
	d.Ports = []abi.DomID{hosttest.Unlabeled, 3, 4}
	err := s.copyAll(1)
	want := `domain 4242: domain configuration refused: nics: refused: network devices (vif) cannot be protected yet
b_info: max_memkb 131072 and target_memkb 65536 differ: a ballooned guest cannot be protected; set maxmem= to memory=
xenstore nodes of domain 4242: device 9pfs/0: this class of device cannot be protected
device vif/0: network devices (vif) cannot be protected yet
its event channel 2 leads to domain 3; only devices of domain 0 are protected
its event channel 3 leads to domain 4; only devices of domain 0 are protected`
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if s.capture != nil {
		t.Error("Xen was asked")
	}
}

// TestProtectable: a guest that can be protected is asked for no more.
func TestProtectable(t *testing.T) {
	d, s := runningGuest(t, strings.NewReplacer())
	home := fmt.Sprintf("/local/domain/%d/device/", uint16(hosttest.DomID))
	back := fmt.Sprintf("/local/domain/0/backend/vbd3/%d/51712", uint16(hosttest.DomID))
	d.Nodes = map[string]string{
		home + "vbd/51712/backend": back, back + "/frontend": home + "vbd/51712",
	}
	d.Ports = []abi.DomID{abi.Dom0, hosttest.Unlabeled, abi.Dom0}
	if err := s.protectable(); err != nil {
		t.Error(err)
	}
}
