// SPDX-License-Identifier: Apache-2.0

package xlstream

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func testConfig(t testing.TB) *Config {
	t.Helper()
	data, err := os.ReadFile("testdata/pvh.json")
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := ParseConfig(data)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// testGuest is laid out as libxl lays out a 128 MiB PVH guest: RAM from zero,
// special pages below 4 GiB.
func testGuest(t testing.TB) *Guest {
	return &Guest{
		Config:   testConfig(t),
		DomID:    4242,
		XenMajor: 4, XenMinor: 20,
		RAM: []Range{{0, 0x8000 - 8}, {0xfeff8, 8}},
		TSC: TSCInfo{Mode: 0, KHz: 2_100_000, NSec: 123_456_789_012, Incarnation: 1},
		Params: []HVMParam{
			{ParamStorePFN, 0xfeffc},
			{ParamConsolePFN, 0xfeffb},
			{ParamX87FIPWidth, 8},
		},
		HVMContext: bytes.Repeat([]byte{0xa5}, 1021), // not a multiple of eight
	}
}

func save(t testing.TB, g *Guest) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, g); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestVerifyStream has Xen's own verifier read the save file.  It is written
// from the specification, independently of the restorer and of this package.
func TestVerifyStream(t *testing.T) {
	src := os.Getenv("XEN_SRC")
	if src == "" {
		t.Skip("XEN_SRC does not name a Xen source tree, whose verify-stream-v2 this test runs")
	}
	bare, split := testGuest(t), testGuest(t)
	split.RAM = []Range{{0, 1}, {0x10, 1023}, {0x1000, 1024}, {0x2000, 1025}, {0xfeff8, 8}}
	for name, g := range map[string]*Guest{"bare": bare, "in many ranges": split} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "save")
			if err := os.WriteFile(file, save(t, g), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("python3", filepath.Join(src, "tools/python/scripts/verify-stream-v2"),
				"-v", "-f", "xl", "-i", file)
			cmd.Env = append(os.Environ(), "PYTHONPATH="+filepath.Join(src, "tools/python"), "PYTHONDONTWRITEBYTECODE=1")
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("verify-stream-v2: %v\n%s", err, out)
			}
			for _, want := range []string{"Processed xl header", "Libxl Record: Libxc context, length 0",
				"x86 HVM from Xen 4.20", "Static data end", "Page Data records", "HVM context, length 1021",
				"2100000 kHz", "Libxl Record: End"} {
				if !strings.Contains(string(out), want) {
					t.Errorf("verifier did not report %q:\n%s", want, out)
				}
			}
		})
	}
}

// TestRestorer walks the stream as the restorer does and checks what the
// verifier does not: the xl header, the order of records, which pages are
// populated, and that nothing is left over.
func TestRestorer(t *testing.T) {
	g := testGuest(t)
	r := bytes.NewReader(save(t, g))
	le := binary.LittleEndian
	next := func(n int) []byte {
		b := make([]byte, n)
		if _, err := r.Read(b); err != nil {
			t.Fatalf("stream ends early: %v", err)
		}
		return b
	}

	// struct save_file_header: 32 bytes of magic, four little-endian words.
	if magic := next(32); string(magic) != "Xen saved domain, xl format\n \x00 \r" {
		t.Errorf("magic %q", magic)
	}
	words := next(16)
	if le.Uint32(words) != 0x01020304 || le.Uint32(words[4:]) != 3 || le.Uint32(words[8:]) != 0 {
		t.Errorf("xl header words % x", words)
	}
	opt := next(int(le.Uint32(words[12:])))
	if n := le.Uint32(opt); int(n) != len(opt)-4 {
		t.Errorf("configuration of %d bytes in optional data of %d", n, len(opt))
	}
	if bytes.IndexByte(opt[4:], 0) != len(opt)-5 {
		t.Error("the configuration is not ended by its only NUL")
	}
	if cfg, err := decodeJSON(opt[4:]); err != nil {
		t.Error(err)
	} else if name := cfg.(*object).child("c_info").get("name"); name != "web--kemari" {
		t.Errorf("name %v", name)
	}

	next(16) // libxl header
	if rec := next(8); !bytes.Equal(rec, []byte{1, 0, 0, 0, 0, 0, 0, 0}) {
		t.Errorf("LIBXC_CONTEXT record % x", rec)
	}
	next(24 + 16) // image and domain header

	var order []uint32
	populated := map[uint64]bool{}
	for {
		hdr := next(8)
		typ, n := le.Uint32(hdr), int(le.Uint32(hdr[4:]))
		body := []byte{}
		if n > 0 {
			body = next((n + 7) &^ 7)[:n]
		}
		if len(order) == 0 || order[len(order)-1] != typ {
			order = append(order, typ)
		}
		switch typ {
		case recPageData:
			if count := int(le.Uint32(body)); count < 1 || count > 1024 || n != 8+8*count {
				t.Fatalf("PAGE_DATA of %d pages in %d bytes", count, n)
			}
			for b := body[8:]; len(b) > 0; b = b[8:] {
				pfn := le.Uint64(b)
				if pfn>>60 != 0xe {
					t.Fatalf("page %#x is not of type XALLOC", pfn)
				}
				pfn &= 1<<52 - 1
				if populated[pfn] {
					t.Fatalf("gfn %#x twice", pfn)
				}
				populated[pfn] = true
			}
		case recHVMParams:
			for b := body[8:]; len(b) > 0; b = b[16:] {
				if idx := le.Uint64(b); idx == ParamStorePFN || idx == ParamConsolePFN {
					if !populated[le.Uint64(b[8:])] {
						t.Errorf("parameter %d names a page that is not populated yet", idx)
					}
				}
			}
		}
		if typ == recEnd {
			break
		}
	}
	want := []uint32{recStaticDataEnd, recPageData, recTSCInfo, recHVMContext, recHVMParams, recEnd}
	if !equal(order, want) {
		t.Errorf("records %#x, want %#x", order, want)
	}
	if len(populated) != 0x8000 {
		t.Errorf("%d pages populated, want %d", len(populated), 0x8000)
	}
	if rec := next(8); !bytes.Equal(rec, make([]byte, 8)) {
		t.Errorf("libxl END record % x", rec)
	}
	if r.Len() != 0 {
		t.Errorf("%d bytes after the end", r.Len())
	}
}

func equal(a, b []uint32) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// TestCheckGivesEveryReason: an operator must not learn the reasons one by one.
func TestCheckGivesEveryReason(t *testing.T) {
	g := testGuest(t)
	g.DomID = 0x7ff0
	g.RAM = []Range{{0, 100000}}
	g.Params = []HVMParam{{ParamStorePFN, 1 << 30}, {0, 1}, {ParamStorePFN, 1}}
	g.HVMContext = nil
	g.TSC.KHz = 0
	err := Write(&bytes.Buffer{}, g)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"domid 32752", "100000 pages", "131072 kB", "names gfn 0x40000000",
		"parameter 0 = 0x1", "listed twice", "parameter 17 is missing", "HVM context", "TSC"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error does not mention %q:\n%v", want, err)
		}
	}
}

func TestCheckRAM(t *testing.T) {
	for name, ram := range map[string][]Range{
		"overlap":      {{0, 10}, {9, 1}},
		"out of order": {{10, 1}, {0, 1}},
		"empty range":  {{0, 0}},
		"wraps":        {{1, ^uint64(0)}},
		"too high":     {{1 << 32, 1}},
		"none":         {},
	} {
		g := testGuest(t)
		g.RAM = ram
		if err := g.Check(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

type failingWriter struct{ left int }

var errFull = errors.New("no space left")

func (w *failingWriter) Write(b []byte) (int, error) {
	if w.left -= len(b); w.left < 0 {
		return 0, errFull
	}
	return len(b), nil
}

// TestWriteError: a short save file must never look like a whole one.
func TestWriteError(t *testing.T) {
	g := testGuest(t)
	for left := range []int{0, 1, 100, 5000, 200000} {
		if err := Write(&failingWriter{left}, g); !errors.Is(err, errFull) {
			t.Errorf("after %d bytes: %v", left, err)
		}
	}
}
