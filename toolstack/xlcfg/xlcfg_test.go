// SPDX-License-Identifier: Apache-2.0

package xlcfg

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func dump(v Value) string {
	if !v.IsList {
		return fmt.Sprintf("%q", v.Text)
	}
	var elems []string
	for _, e := range v.List {
		elems = append(elems, dump(e))
	}
	return "[" + strings.Join(elems, " ") + "]"
}

func TestGolden(t *testing.T) {
	f, err := Load("testdata/guest.cfg")
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, s := range f.Settings {
		fmt.Fprintf(&got, "%d %s %s\n", s.Line, s.Key, dump(s.Value))
	}
	want, err := os.ReadFile("testdata/guest.golden")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestXenExamples parses the examples that come with Xen.
func TestXenExamples(t *testing.T) {
	src := os.Getenv("XEN_SRC")
	if src == "" {
		t.Skip("XEN_SRC does not name a Xen source tree, whose tools/examples this test parses")
	}
	for file, want := range map[string]string{
		"xlexample.pvhlinux": `type="pvh" name="example.pvhlinux" kernel="/boot/vmlinuz" extra="root=/dev/xvda1" memory="512" vcpus="4" vif=[""] disk=["/dev/zvol/tank/guest-volume,raw,xvda,rw"]`,
		"xlexample.pvlinux":  `name="example.pvlinux" kernel="/boot/vmlinuz" extra="root=/dev/xvda1" memory="128" vcpus="2" vif=[""] disk=["/dev/vg/guest-volume,raw,xvda,rw"]`,
		"cpupool":            `name="Example-Cpupool" sched="credit" cpus=["2" "3"]`,
		"xl.conf":            ``,
	} {
		f, err := Load(filepath.Join(src, "tools/examples", file))
		if err != nil {
			t.Error(err)
			continue
		}
		var got []string
		for _, s := range f.Settings {
			got = append(got, s.Key+"="+dump(s.Value))
		}
		if diff := cmp.Diff(want, strings.Join(got, " ")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", file, diff)
		}
	}
	if _, err := Load(filepath.Join(src, "tools/examples/xlexample.hvm")); err != nil {
		t.Error(err)
	}
}

// TestErrors: each error names its line, and all come at once.
func TestErrors(t *testing.T) {
	src := strings.Join([]string{
		`name = web`,           // 1
		`Memory = 128`,         // 2
		`vcpus 2`,              // 3
		`extra = "no end`,      // 4
		`kernel = "a" "b"`,     // 5
		`disk = [ 'a' 'b' ]`,   // 6
		`ok = 1`,               // 7
		`cmdline = "\q \x41"`,  // 8
		`boot = -1`,            // 9
		`vif = [ 'a', , 'b' ]`, // 10
		`ok += [ 'a' ]`,        // 11
		`deep = [[[[[[[[[[[[[[[[[[[[[[[[ 1 ]]]]]]]]]]]]]]]]]]]]]]]]`, // 12
		`open = [ 'a',`, // 13
	}, "\n")
	_, err := Parse("/etc/xen/web.cfg", []byte(src))
	if err == nil {
		t.Fatal("no error")
	}
	want := strings.Join([]string{
		`/etc/xen/web.cfg:1: expected a string, a number or a list, found "web"`,
		`/etc/xen/web.cfg:2: "Memory" is not part of a setting; strings need quotes`,
		`/etc/xen/web.cfg:3: expected = or +=, found "2"`,
		`/etc/xen/web.cfg:4: string has no closing quote on its line`,
		`/etc/xen/web.cfg:5: expected end of line or ;, found string "b"`,
		`/etc/xen/web.cfg:6: expected , or ], found string "b"`,
		`/etc/xen/web.cfg:8: escape \x is not one of \" \' \\ \a \b \f \n \r \t \v`,
		`/etc/xen/web.cfg:9: "-1" is not part of a setting; strings need quotes`,
		`/etc/xen/web.cfg:10: expected a string, a number or a list, found ","`,
		`/etc/xen/web.cfg:11: ok: cannot add a list to a string or a string to a list`,
		`/etc/xen/web.cfg:12: expected a string, a number or a list, found "["`,
		`/etc/xen/web.cfg:13: expected a string, a number or a list, found end of file`,
	}, "\n")
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var e *Error
	if !errors.As(err, &e) || e.Line != 1 {
		t.Errorf("%v is not an Error of line 1", e)
	}
}

func TestNoNewlineAtEnd(t *testing.T) {
	for _, src := range []string{"a=1", "a=1;", "a=1 # comment", "a=1\n#"} {
		f, err := Parse("x", []byte(src))
		if err != nil || len(f.Settings) != 1 {
			t.Errorf("%q: %v", src, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	guest, err := os.ReadFile("testdata/guest.cfg")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(guest)
	f.Add([]byte("a=[[1,\n2],'x\\n']\nb+=\"\\\"\""))
	f.Fuzz(func(t *testing.T, src []byte) {
		file, err := Parse("f", src)
		lines := strings.Count(string(src), "\n") + 1
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Line < 1 || e.Line > lines {
				t.Fatalf("error without a line: %v", err)
			}
			return
		}
		seen := map[string]bool{}
		for _, s := range file.Settings {
			if seen[s.Key] || s.Line < 1 || s.Line > lines {
				t.Fatalf("setting %+v", s)
			}
			seen[s.Key] = true
		}
	})
}
