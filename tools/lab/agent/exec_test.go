// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kemari-ft/kemari/tools/lab/channel"
)

func client(t *testing.T) *channel.Client {
	near, far := net.Pipe()
	go channel.Serve(context.Background(), far, executor{})
	t.Cleanup(func() { near.Close() })
	return channel.NewClient(near)
}

func sh(script string) channel.Request {
	return channel.Request{Op: channel.Exec, Argv: []string{"sh", "-c", script}}
}

func TestCommand(t *testing.T) {
	c := client(t)
	var out, errOut bytes.Buffer
	req := sh(`cat; echo $VAR >&2; pwd; exit 4`)
	req.Env, req.Dir = []string{"VAR=value"}, "/"
	st, err := c.Do(t.Context(), req, strings.NewReader("in\n"), &out, &errOut)
	if err != nil || st.Code != 4 || out.String() != "in\n/\n" || errOut.String() != "value\n" {
		t.Errorf("status %+v, %v, output %q, error output %q", st, err, &out, &errOut)
	}
	if st, err := c.Do(t.Context(), sh("kill -TERM $$"), nil, nil, nil); err != nil || st.Signal != int(syscall.SIGTERM) {
		t.Errorf("status %+v, %v, want death by SIGTERM", st, err)
	}
	req = channel.Request{Op: channel.Exec, Argv: []string{"/no/such/program"}}
	if st, err := c.Do(t.Context(), req, nil, nil, nil); err != nil || !strings.Contains(st.Err, "no such file") {
		t.Errorf("status %+v, %v, want that there is no such file", st, err)
	}
}

func TestAllOutputOfAFastCommandArrives(t *testing.T) {
	c := client(t)
	for range 20 {
		var out bytes.Buffer
		if _, err := c.Do(t.Context(), sh("head -c 1000000 /dev/zero"), nil, &out, nil); err != nil {
			t.Fatal(err)
		}
		if out.Len() != 1000000 {
			t.Fatalf("%d octets arrived of 1000000", out.Len())
		}
	}
}

func TestDaemonLeftBehind(t *testing.T) {
	c := client(t)
	var out bytes.Buffer
	begin := time.Now()
	st, err := c.Do(t.Context(), sh("sleep 30 & echo $!"), nil, &out, nil)
	if err != nil || st.Code != 0 {
		t.Fatalf("status %+v, %v", st, err)
	}
	if d := time.Since(begin); d > 10*time.Second {
		t.Errorf("waited %v for a process that was left behind", d)
	}
	if _, err := c.Do(t.Context(), sh("kill "+out.String()), nil, nil, nil); err != nil {
		t.Error(err)
	}
}

func TestTimeoutKillsTheWholeGroup(t *testing.T) {
	c := client(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	pid := filepath.Join(t.TempDir(), "pid")
	if _, err := c.Do(ctx, sh("sh -c 'echo $$ > "+pid+"; exec sleep 60'; true"), nil, nil, nil); err == nil {
		t.Fatal("no error from a command that was killed")
	}
	text, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	child := "/proc/" + strings.TrimSpace(string(text)) + "/cmdline"
	for range 100 {
		if cmd, err := os.ReadFile(child); err != nil || len(cmd) == 0 {
			return // gone, or a zombie
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Error("the command's child outlived it")
}

func TestFiles(t *testing.T) {
	c := client(t)
	path := filepath.Join(t.TempDir(), "f")
	data := strings.Repeat("0123456789", 100000)
	req := channel.Request{Op: channel.Put, Path: path, Mode: 0o750}
	if st, err := c.Do(t.Context(), req, strings.NewReader(data), nil, nil); err != nil || st.Check() != nil {
		t.Fatalf("put: %+v, %v", st, err)
	}
	var got bytes.Buffer
	st, err := c.Do(t.Context(), channel.Request{Op: channel.Get, Path: path}, nil, &got, nil)
	if err != nil || st.Mode != 0o750 || got.String() != data {
		t.Errorf("get: %+v, %v, %d octets", st, err, got.Len())
	}
	st, err = c.Do(t.Context(), channel.Request{Op: channel.Get, Path: path + "x"}, nil, io.Discard, nil)
	if err != nil || !strings.Contains(st.Err, "no such file") {
		t.Errorf("get of a missing file: %+v, %v", st, err)
	}
}

// TestDial: who answers may do so long after the end of the question.
func TestDial(t *testing.T) {
	c := client(t)
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		line, _ := bufio.NewReader(conn).ReadString('\n')
		conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err := conn.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
			fmt.Fprint(conn, "answer to "+line)
		}
	}()
	var got bytes.Buffer
	st, err := c.Do(t.Context(), channel.Request{Op: channel.Dial, Path: path}, strings.NewReader("question\n"), &got, nil)
	if err != nil || st.Check() != nil || got.String() != "answer to question\n" {
		t.Errorf("%+v, %v, %q", st, err, got.String())
	}
	st, err = c.Do(t.Context(), channel.Request{Op: channel.Dial, Path: path + "x"}, nil, io.Discard, nil)
	if err != nil || !strings.Contains(st.Err, "no such file") {
		t.Errorf("dial of a missing socket: %+v, %v", st, err)
	}
}
