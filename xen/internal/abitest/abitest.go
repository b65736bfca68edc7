// SPDX-License-Identifier: Apache-2.0

// Package abitest compares Go declarations of a C interface with what the C
// compiler makes of the original headers.
//
// From a Spec it writes a C program that prints the size of each struct, the
// offset of each field, and the value of each constant. Its output is committed
// as a golden file, with which the Go declarations are compared. Where the
// headers are at hand ($XEN_SRC), the program is run and the golden file is
// compared too, or with -update rewritten.
package abitest

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unicode"
)

var update = flag.Bool("update", false, "rewrite testdata from the headers in $XEN_SRC")

// Spec lists what is compared.
type Spec struct {
	Headers []string
	Structs []Struct
	Consts  []Const
	Golden  string // file in testdata
}

// Struct pairs a C type with a zero value of the Go struct. A Go field is
// compared with the C field of the same name in snake case, or of its tag c.
// Fields named _ are padding.
type Struct struct {
	C  string
	Go any
}

// Const pairs a C constant expression with a Go value.
type Const struct {
	C  string
	Go any // of an integer type
}

// Check runs the comparison.
func Check(t *testing.T, s Spec) {
	t.Helper()
	golden := filepath.Join("testdata", s.Golden)
	if src := os.Getenv("XEN_SRC"); src != "" {
		measured := measure(t, s, src)
		if *update {
			write(t, golden, measured)
		} else if old, err := os.ReadFile(golden); err != nil || !bytes.Equal(old, measured) {
			t.Errorf("%s is not what gcc says about the headers in %s: %s", golden, src, firstDiff(string(old), string(measured)))
		}
	} else if *update {
		t.Fatal("-update needs XEN_SRC, the path of a Xen source tree")
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := firstDiff(string(want), render(s)); d != "" {
		t.Errorf("Go declarations differ from %s: %s", golden, d)
	}
}

// render prints the Go side in the golden file's format.
func render(s Spec) string {
	var b strings.Builder
	for _, st := range s.Structs {
		typ := reflect.TypeOf(st.Go)
		fmt.Fprintf(&b, "%s size %d\n", st.C, typ.Size())
		for _, f := range fields(typ) {
			fmt.Fprintf(&b, "%s.%s off %d\n", st.C, f.c, f.off)
		}
	}
	for _, c := range s.Consts {
		v := reflect.ValueOf(c.Go)
		n := int64(0)
		if v.CanUint() {
			n = int64(v.Uint())
		} else {
			n = v.Int()
		}
		fmt.Fprintf(&b, "%s = %d\n", c.C, n)
	}
	return b.String()
}

type field struct {
	c   string
	off uintptr
}

func fields(typ reflect.Type) []field {
	var out []field
	for i := range typ.NumField() {
		f := typ.Field(i)
		if f.Name == "_" {
			continue
		}
		c := f.Tag.Get("c")
		if c == "" {
			c = snake(f.Name)
		}
		out = append(out, field{c, f.Offset})
	}
	return out
}

// snake turns MaxNrFrames into max_nr_frames and CPUTime into cpu_time.
func snake(s string) string {
	var b strings.Builder
	r := []rune(s)
	for i, c := range r {
		if unicode.IsUpper(c) && i > 0 &&
			(unicode.IsLower(r[i-1]) || i+1 < len(r) && unicode.IsLower(r[i+1]) && unicode.IsUpper(r[i-1])) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(c))
	}
	return b.String()
}

// probe writes the C program.
func probe(s Spec) []byte {
	var b bytes.Buffer
	b.WriteString("/* SPDX-License-Identifier: Apache-2.0 */\n" +
		"/* Written by xen/internal/abitest: prints the layout of Xen's public types. */\n" +
		"#define __XEN_TOOLS__ 1\n#include <stddef.h>\n#include <stdint.h>\n#include <stdio.h>\n" +
		"#include <errno.h>\n#include <sys/ioctl.h>\n")
	for _, h := range s.Headers {
		fmt.Fprintf(&b, "#include <%s>\n", h)
	}
	b.WriteString("\n#define SIZE(t) printf(\"%s size %zu\\n\", #t, sizeof(t))\n" +
		"#define OFF(t, f) printf(\"%s.%s off %zu\\n\", #t, #f, offsetof(t, f))\n" +
		"#define NUM(name, c) printf(\"%s = %lld\\n\", name, (long long)(c))\n\nint main(void)\n{\n")
	for _, st := range s.Structs {
		fmt.Fprintf(&b, "    SIZE(%s);\n", st.C)
		for _, f := range fields(reflect.TypeOf(st.Go)) {
			fmt.Fprintf(&b, "    OFF(%s, %s);\n", st.C, f.c)
		}
	}
	for _, c := range s.Consts {
		fmt.Fprintf(&b, "    NUM(%q, %s);\n", c.C, c.C)
	}
	b.WriteString("    return 0;\n}\n")
	return b.Bytes()
}

func measure(t *testing.T, s Spec, src string) []byte {
	t.Helper()
	dir := t.TempDir()
	c := filepath.Join(dir, "probe.c")
	write(t, c, probe(s))
	if *update {
		write(t, filepath.Join("testdata", "probe.c"), probe(s))
	}
	exe := filepath.Join(dir, "probe")
	cmd := exec.Command("gcc", "-Wall", "-o", exe,
		"-I"+filepath.Join(src, "xen/include"), "-I"+filepath.Join(src, "tools/include"), c)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	out, err := exec.Command(exe).Output()
	if err != nil {
		t.Fatalf("probe: %v", err)
	}
	return out
}

func write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// firstDiff lists the first lines that differ, or returns "".
func firstDiff(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	var b strings.Builder
	for i, n := 0, 0; i < max(len(w), len(g)) && n < 10; i++ {
		var a, c string
		if i < len(w) {
			a = w[i]
		}
		if i < len(g) {
			c = g[i]
		}
		if a != c {
			fmt.Fprintf(&b, "\n\tline %d: %q, not %q", i+1, c, a)
			n++
		}
	}
	return b.String()
}
