// SPDX-License-Identifier: Apache-2.0

package xlstream

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestConfigVariants(t *testing.T) {
	cfg := testConfig(t)
	if cfg.Name() != "web" || cfg.VCPUs() != 2 || cfg.MaxMemKB() != 131072 || cfg.UUID() != "0b7e7e5e-6e2c-4f3b-8f0a-2a5f0e4f1c11" {
		t.Errorf("read %q %d %d %q", cfg.Name(), cfg.VCPUs(), cfg.MaxMemKB(), cfg.UUID())
	}
	if d := cfg.Disks(); len(d) != 1 || d[0] != (Disk{"xvda", "/dev/vg0/web", true}) {
		t.Errorf("disks %v", d)
	}
	if f := fmt.Sprint(cfg.HostFiles()); f != "[/boot/vmlinuz-guest /boot/initrd-guest]" {
		t.Errorf("host files %s", f)
	}
	for _, tc := range []struct {
		name      string
		render    func() ([]byte, error)
		wantName  string
		wantDomid bool
		wantDisks bool
	}{
		{"shell", func() ([]byte, error) { return cfg.Shell(4242) }, "web--kemari", true, false},
		{"parked", cfg.Parked, "web--kemari", false, false},
		{"active", cfg.Active, "web", false, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			data, err := tc.render()
			if err != nil {
				t.Fatal(err)
			}
			var got struct {
				CInfo struct {
					Name  string
					Domid *int
				} `json:"c_info"`
				BInfo struct{ Cmdline string } `json:"b_info"`
				Disks []any
			}
			if err := json.Unmarshal(data, &got); err != nil {
				t.Fatal(err)
			}
			if got.CInfo.Name != tc.wantName {
				t.Errorf("name %q, want %q", got.CInfo.Name, tc.wantName)
			}
			if (got.CInfo.Domid != nil) != tc.wantDomid || tc.wantDomid && *got.CInfo.Domid != 4242 {
				t.Errorf("domid in %s", data)
			}
			if (len(got.Disks) != 0) != tc.wantDisks {
				t.Errorf("devices in %s", data)
			}
			if got.BInfo.Cmdline != `console=hvc0 root=/dev/xvda ro "quiet"` {
				t.Errorf("cmdline %q", got.BInfo.Cmdline)
			}
			if bytes.Contains(data, []byte("poolid")) {
				t.Error("the number of the other host's CPU pool went along")
			}
		})
	}
	// Rendering must not have changed what is rendered.
	if again, _ := cfg.Active(); !bytes.Contains(again, []byte("xvda")) {
		t.Error("a variant took the disks away from the configuration")
	}
}

// TestConfigForms: libxl-json on disk ends in NUL; xl list -l wraps.
func TestConfigForms(t *testing.T) {
	plain, err := os.ReadFile("testdata/pvh.json")
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{
		"libxl-json":       string(plain) + "\x00",
		"xl list -l":       fmt.Sprintf(`[{"domid": 7, "config": %s}]`, plain),
		"one of xl list":   fmt.Sprintf(`{"domid": 7, "config": %s}`, plain),
		"with domid":       strings.Replace(string(plain), `"type": "pvh"`, `"type": "pvh", "domid": 7`, 1),
		"explicit nothing": strings.Replace(string(plain), `"disks"`, `"vfbs": [], "nics": [], "channels": null, "disks"`, 1),
	} {
		if _, err := ParseConfig([]byte(data)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestKeepDisks: a disk that nobody serves is not the guest's.
func TestKeepDisks(t *testing.T) {
	all := testConfig(t).Disks()
	for n, paths := range []map[string]string{{}, {all[0].Vdev: "/dev/other"}, {"xvdz": all[0].Path}, {all[0].Vdev: all[0].Path}} {
		cfg := testConfig(t)
		cfg.KeepDisks(paths)
		raw, err := cfg.Active()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseConfig(raw)
		if err != nil {
			t.Fatal(err)
		}
		want := all[:n/3] // the last one has it
		if got := again.Disks(); !slices.Equal(got, want) {
			t.Errorf("with %q: disks %+v, want %+v", paths, got, want)
		}
	}
}

func TestConfigRefused(t *testing.T) {
	plain, err := os.ReadFile("testdata/pvh.json")
	if err != nil {
		t.Fatal(err)
	}
	in := func(section, member string) string {
		return strings.Replace(string(plain), `"`+section+`": {`, `"`+section+`": {`+member+",", 1)
	}
	swap := func(old, new string) string {
		if !bytes.Contains(plain, []byte(old)) {
			t.Fatalf("%q is not in the template", old)
		}
		return strings.Replace(string(plain), old, new, 1)
	}
	for _, tc := range []struct{ name, data, want string }{
		{"unknown key", in("b_info", `"firmware_override": "/tmp/x"`), "b_info.firmware_override: unknown key"},
		{"unknown top", swap(`"on_reboot"`, `"hooks": 1, "on_reboot"`), "hooks: unknown key"},
		{"device model", in("b_info", `"device_model": "/tmp/evil"`), "device_model: refused"},
		{"device model arguments", in("b_info", `"extra_pv": ["-x"]`), "extra_pv: refused"},
		{"boot loader", in("b_info", `"bootloader": "pygrub"`), "bootloader: refused"},
		{"disk script", swap(`"format": "raw"`, `"format": "raw", "script": "/tmp/evil"`), "disks[0].script"},
		{"vif", swap(`"on_reboot"`, `"nics": [{"devid": 0, "script": "/tmp/evil"}], "on_reboot"`), "nics: refused: network devices (vif) cannot be protected yet"},
		{"disk of the kernel", swap(`"tap"`, `"phy"`), "disks[0].backend"},
		{"disk path", swap(`/dev/vg0/web`, `/dev/../etc/shadow`), "disks[0].pdev_path"},
		{"kernel path", swap(`/boot/vmlinuz-guest`, `../vmlinuz`), "b_info.kernel"},
		{"name with slash", swap(`"web"`, `"../../etc/cron.d/x"`), "c_info.name"},
		{"name like an option", swap(`"web"`, `"-F"`), "c_info.name"},
		{"name of a shell", swap(`"web"`, `"web--kemari"`), "name of a shell"},
		{"negative bit", swap("0,\n            1", "-9, 1"), "b_info.avail_vcpus"},
		{"bits not ascending", swap("0,\n            1", "4000, 1"), "b_info.avail_vcpus"},
		{"HVM", swap(`"type.pvh"`, `"type.hvm": {"serial": "tcp:1"}, "type.pvh"`), "type.hvm: refused"},
		{"PV", swap(`"type": "pvh"`, `"type": "pv"`), "c_info.type"},
		{"passthrough", swap(`"on_reboot"`, `"pcidevs": [{"bus": 1}], "on_reboot"`), "pcidevs: refused"},
		{"frame buffer", swap(`"on_reboot"`, `"vfbs": [{}], "on_reboot"`), "vfbs: refused"},
		{"xenstore data", in("c_info", `"xsdata": {"a": "b"}`), "xsdata: refused"},
		{"grant v2", in("b_info", `"max_grant_version": 2`), "max_grant_version"},
		{"balloon", swap(`"target_memkb": 131072`, `"target_memkb": 65536`), "balloon"},
		{"nested", in("b_info", `"nested_hvm": "True"`), "nested_hvm: refused"},
		{"control character", swap(`quiet`, `quiet\u0000`), "b_info.cmdline"},
		{"key twice", in("c_info", `"name": "other"`), "twice"},
		{"number too large", swap(`"max_vcpus": 2`, `"max_vcpus": 99999999999999999999`), "max_vcpus"},
		{"fraction", swap(`"max_vcpus": 2`, `"max_vcpus": 2.0`), "max_vcpus"},
		{"two configurations", string(plain) + "{}", "follows"},
		{"truncated", string(plain[:len(plain)/2]), "EOF"},
		{"too deep", strings.Repeat("[", 1000), "deeper"},
		{"too long", strings.Repeat(" ", maxJSON+1), "bytes"},
		{"no object", "[]", "expected an object"},
		{"nothing in it", "{}", "c_info.name: missing"},
	} {
		if _, err := ParseConfig([]byte(tc.data)); err == nil {
			t.Errorf("%s: accepted", tc.name)
		} else if !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error does not mention %q:\n%v", tc.name, tc.want, err)
		}
	}
	_, err = ParseConfig([]byte(strings.NewReplacer("raw", "qcow2", "/boot/v", "v", `"uuid"`, `"uid"`).Replace(string(plain))))
	if err == nil || strings.Count(err.Error(), "\n") != 3 {
		t.Errorf("not every reason at once: %v", err)
	}
}

// TestVCPUsByDefault: libxl writes no max_vcpus where xl.cfg has no vcpus.
func TestVCPUsByDefault(t *testing.T) {
	const json = `{"c_info":{"type":"pvh","name":"a","uuid":"0b7e7e5e-6e2c-4f3b-8f0a-2a5f0e4f1c11"},"b_info":{"max_memkb":4,"target_memkb":4,"type.pvh":{}}}`
	cfg, err := ParseConfig([]byte(json))
	if err != nil {
		t.Fatal(err)
	}
	if n := cfg.VCPUs(); n != 1 {
		t.Errorf("%d vCPUs, want 1", n)
	}
}

// TestSchemaCoversIDL holds the table of keys against libxl's own description
// of its types: each key must have been decided on.
func TestSchemaCoversIDL(t *testing.T) {
	src := os.Getenv("XEN_SRC")
	if src == "" {
		t.Skip("XEN_SRC does not name a Xen source tree, whose libxl_types.idl this test reads")
	}
	light := filepath.Join(src, "tools/libs/light")
	script := `
import sys; sys.path.insert(0, sys.argv[1]); sys.dont_write_bytecode = True
import idl
_, types = idl.parse(sys.argv[1] + "/libxl_types.idl")
for t in types:
    for f in getattr(t, "fields", None) or []:
        if isinstance(f.type, idl.KeyedUnion):
            for u in f.type.fields:
                print(t.typename, f.type.keyvar.name + "." + u.name)
        elif hasattr(f, "name"):
            print(t.typename, f.name)
`
	out, err := exec.Command("python3", "-c", script, light).CombinedOutput()
	if err != nil {
		t.Fatalf("read libxl_types.idl: %v\n%s", err, out)
	}
	tables := map[string]map[string]rule{
		"libxl_domain_config":       domainConfig,
		"libxl_domain_create_info":  createInfo,
		"libxl_domain_build_info":   buildInfo,
		"libxl_domain_sched_params": schedParams,
		"libxl_device_disk":         diskFields,
	}
	known := map[string]map[string]bool{}
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		typ, key, _ := strings.Cut(line, " ")
		table, ok := tables[typ]
		if !ok {
			continue
		}
		if known[typ] == nil {
			known[typ] = map[string]bool{}
		}
		known[typ][key] = true
		if table[key] == nil && !strings.Contains(key, "colo") {
			t.Errorf("%s.%s is not decided on", typ, key)
		}
	}
	for typ, table := range tables {
		for key := range table {
			if !known[typ][key] {
				t.Errorf("%s.%s is not a key of libxl", typ, key)
			}
		}
	}
}

// FuzzParseConfig: whatever the peer sends, what is accepted can be rendered,
// is accepted again, and holds nothing that xl would run.
func FuzzParseConfig(f *testing.F) {
	plain, err := os.ReadFile("testdata/pvh.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain)
	f.Add([]byte(`{"c_info":{"type":"pvh","name":"a","uuid":"0b7e7e5e-6e2c-4f3b-8f0a-2a5f0e4f1c11"},"b_info":{"max_vcpus":1,"max_memkb":4,"target_memkb":4,"type.pvh":{}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := ParseConfig(data)
		if err != nil {
			return
		}
		active, err := cfg.Active()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseConfig(active)
		if err != nil {
			t.Fatalf("own output refused: %v\n%s", err, active)
		}
		if second, _ := again.Active(); !bytes.Equal(active, second) {
			t.Fatalf("not stable:\n%s\n%s", active, second)
		}
		shell, err := cfg.Shell(1)
		if err != nil {
			t.Fatal(err)
		}
		v, err := decodeJSON(shell)
		if err != nil {
			t.Fatal(err)
		}
		noDeviceKeys(t, v)
	})
}

func noDeviceKeys(t *testing.T, v any) {
	o, ok := v.(*object)
	if !ok {
		return
	}
	for _, m := range o.members {
		switch m.key {
		case "disks", "nics", "script", "device_model", "bootloader", "vfbs", "pcidevs":
			if !unset(m.val) {
				t.Fatalf("%s in a shell: %v", m.key, m.val)
			}
		}
		noDeviceKeys(t, m.val)
	}
}
