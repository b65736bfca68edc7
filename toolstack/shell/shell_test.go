// SPDX-License-Identifier: Apache-2.0

package shell

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kemari-ft/kemari/toolstack/shell/xlstream"
)

const uuid = "0b7e7e5e-6e2c-4f3b-8f0a-2a5f0e4f1c11"

func testGuest(t testing.TB) *xlstream.Guest {
	t.Helper()
	data, err := os.ReadFile("xlstream/testdata/pvh.json")
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := xlstream.ParseConfig(data)
	if err != nil {
		t.Fatal(err)
	}
	return &xlstream.Guest{
		Config: cfg, DomID: 4242, XenMajor: 4, XenMinor: 20,
		RAM:        []xlstream.Range{{First: 0, Count: 0x7ff8}, {First: 0xfeff8, Count: 8}},
		TSC:        xlstream.TSCInfo{KHz: 2_100_000},
		Params:     []xlstream.HVMParam{{Index: xlstream.ParamStorePFN, Value: 0xfeffc}, {Index: xlstream.ParamConsolePFN, Value: 0xfeffb}},
		HVMContext: make([]byte, 1000),
	}
}

// fakeXL stands in for xl: it logs how it was called, keeps what it was sent,
// and does what libxl does to the file system.
func fakeXL(t *testing.T, restore string) Tools {
	t.Helper()
	dir := t.TempDir()
	script := `#!/bin/sh
cd ` + dir + `
echo "$LIBXL_DOMID_REUSE_TIMEOUT $*" >> log
case "$1" in
domname) if [ -f name ]; then cat name; else echo "Can't get domain name" >&2; exit 1; fi ;;
rename)
if [ -f norename ] || [ "$3" = "$(cat name)" ]; then echo "Domain with name $3 already exists." >&2; exit 1; fi
echo "$3" > name ;;
destroy) rm -f name ;;
restore)
` + restore + `
;;
esac
`
	xl := filepath.Join(dir, "xl")
	if err := os.WriteFile(xl, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return Tools{XL: xl, Lib: dir}
}

const restoreWorks = `cat "$3" > stream; echo web--kemari > name; echo '{"c_info":{"domid":4242}}' > userdata-d.4242.` + uuid + `.libxl-json`

func read(t *testing.T, tools Tools, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(tools.Lib, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestCreateAndActivate(t *testing.T) {
	tools, g, ctx := fakeXL(t, restoreWorks), testGuest(t), context.Background()
	if err := tools.Create(ctx, g); err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	if err := xlstream.Write(&want, g); err != nil {
		t.Fatal(err)
	}
	if got := read(t, tools, "stream"); got != want.String() {
		t.Errorf("xl got %d bytes of save file, want %d", len(got), want.Len())
	}
	if log := read(t, tools, "log"); !strings.Contains(log, "0 restore -p /proc/self/fd/0\n") {
		t.Errorf("xl was called as\n%s", log)
	}
	userdata := "userdata-d.4242." + uuid + ".libxl-json"
	json := read(t, tools, userdata)
	if strings.Contains(json, "domid") || !strings.HasSuffix(json, "\x00") || strings.Contains(json, "xvda\"") {
		t.Errorf("libxl-json of the shell: %q", json)
	}
	if err := tools.Create(ctx, g); err == nil || !strings.Contains(err.Error(), `in use on this host by "web--kemari"`) {
		t.Errorf("second shell: %v", err)
	}

	if err := tools.Activate(ctx, g.DomID, g.Config); err != nil {
		t.Fatal(err)
	}
	if name := read(t, tools, "name"); name != "web\n" {
		t.Errorf("name %q", name)
	}
	if json := read(t, tools, userdata); strings.Contains(json, "domid\"") || !strings.Contains(json, `"xvda"`) {
		t.Errorf("libxl-json after activation: %s", json)
	}
	cfg, err := tools.LoadConfig(g.DomID, strings.ToUpper(uuid))
	if err != nil || cfg.Name() != "web" {
		t.Errorf("load: %v", err)
	}
	if _, err := os.Stat(filepath.Join(tools.Lib, "userdata-l.4242."+uuid+".domain-userdata-lock")); !os.IsNotExist(err) {
		t.Errorf("lock left behind: %v", err)
	}
}

// I11: after its activation a guest is xl's like any other: xl finds it by its
// name, and what xl would build at a reboot is what was there before.
func TestI11ActivatedGuestIsXLs(t *testing.T) {
	tools, g, ctx := fakeXL(t, restoreWorks), testGuest(t), context.Background()
	if err := tools.Create(ctx, g); err != nil {
		t.Fatal(err)
	}
	if name := read(t, tools, "name"); name != "web--kemari\n" {
		t.Fatalf("the shell is named %q", name)
	}
	if err := tools.Activate(ctx, g.DomID, g.Config); err != nil {
		t.Fatal(err)
	}
	if name := read(t, tools, "name"); name != "web\n" {
		t.Errorf("xl calls the guest %q", name)
	}
	want, err := g.Config.Active()
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := tools.LoadConfig(g.DomID, uuid)
	if err != nil {
		t.Fatal(err)
	}
	got, err := cfg.Active()
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("a reboot would build (%v)\n%s\nnot\n%s", err, got, want)
	}
}

// TestActivateIsFinishedLater: whatever fails, the guest gets its name back,
// and what is left to do can be done again, also by another daemon.
func TestActivateIsFinishedLater(t *testing.T) {
	const libxl = "userdata-d.4242." + uuid + ".libxl-json"
	for _, tc := range []struct{ what, fails, works, name string }{
		{"configuration", "mv " + libxl + " away", "mv away " + libxl, "web"},
		{"rename", "touch norename", "rm norename", "web--kemari"},
		{"both", "touch norename; mv " + libxl + " away", "rm norename; mv away " + libxl, "web--kemari"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			tools, g, ctx := fakeXL(t, restoreWorks), testGuest(t), context.Background()
			sh := func(script string) {
				t.Helper()
				if out, err := exec.Command("sh", "-ec", "cd "+tools.Lib+"\n"+script).CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
			if err := tools.Create(ctx, g); err != nil {
				t.Fatal(err)
			}
			sh(tc.fails)
			if err := tools.Activate(ctx, g.DomID, g.Config); err == nil {
				t.Error("no error")
			}
			if name := read(t, tools, "name"); name != tc.name+"\n" {
				t.Errorf("xl calls the guest %q", name)
			}
			sh(tc.works)
			for range 2 {
				cfg, err := tools.Unfinished(g.DomID, uuid)
				if err != nil || cfg == nil {
					t.Fatalf("nothing to finish: %v", err)
				}
				if err := tools.Activate(ctx, g.DomID, cfg); err != nil {
					t.Fatal(err)
				}
				if cfg, err := tools.Unfinished(g.DomID, uuid); err != nil || cfg != nil {
					t.Errorf("still to finish: %v", err)
				}
				if name := read(t, tools, "name"); name != "web\n" {
					t.Errorf("xl calls the guest %q", name)
				}
				if cfg, err := tools.LoadConfig(g.DomID, uuid); err != nil || len(cfg.Disks()) != 1 {
					t.Errorf("a reboot would not build the guest: %v", err)
				}
				// The daemon may have died before it could note that.
				if err := tools.keepActive(g.DomID, g.Config); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestCreateFails(t *testing.T) {
	tools := fakeXL(t, `head -c 100 "$3" >/dev/null; echo "libxl: error: domain creation fail: File exists" >&2; exit 3`)
	err := tools.Create(context.Background(), testGuest(t))
	var xl *Error
	if !errors.As(err, &xl) || !strings.Contains(err.Error(), "File exists") || !strings.Contains(err.Error(), "domid_policy") {
		t.Errorf("error does not carry what xl said and what to do: %v", err)
	}
}

// TestCreateCleansUp: a shell that cannot be parked would vanish at the guest's
// first reboot; one that xl was killed over would hold the domid.
func TestCreateCleansUp(t *testing.T) {
	t.Run("no libxl-json", func(t *testing.T) {
		tools := fakeXL(t, `cat "$3" >/dev/null; echo web--kemari > name`)
		if err := tools.Create(context.Background(), testGuest(t)); err == nil {
			t.Error("no error")
		}
		if !strings.Contains(read(t, tools, "log"), "destroy 4242") {
			t.Error("the shell was left behind")
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		tools := fakeXL(t, `echo web--kemari > name; exec sleep 60`)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := tools.Create(ctx, testGuest(t)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		if !strings.Contains(read(t, tools, "log"), "destroy 4242") {
			t.Error("the shell was left behind")
		}
	})
	t.Run("not ours", func(t *testing.T) {
		tools := fakeXL(t, `echo other > name; exit 1`)
		if err := tools.Create(context.Background(), testGuest(t)); err == nil {
			t.Error("no error")
		}
		if strings.Contains(read(t, tools, "log"), "destroy") {
			t.Error("another domain was destroyed")
		}
	})
}

// TestSaveConfigWaits: libxl and we must not write over each other.
func TestSaveConfigWaits(t *testing.T) {
	tools := Tools{Lib: t.TempDir()}
	file := tools.userdata("d", 5, uuid, "libxl-json")
	if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	unlock, err := lockFile(tools.userdata("l", 5, uuid, "domain-userdata-lock"))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- tools.SaveConfig(5, uuid, []byte(`{"a":1}`)) }()
	select {
	case err := <-done:
		t.Fatalf("wrote under another's lock: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	unlock()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if data, _ := os.ReadFile(file); string(data) != "{\"a\":1}\x00" {
		t.Errorf("file %q", data)
	}
}
