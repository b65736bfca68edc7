// SPDX-License-Identifier: Apache-2.0

package channel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// handlerFunc is a Handler.
type handlerFunc func(ctx context.Context, req Request, stdio Stdio, sig <-chan syscall.Signal) Status

func (f handlerFunc) Handle(ctx context.Context, req Request, stdio Stdio, sig <-chan syscall.Signal) Status {
	return f(ctx, req, stdio, sig)
}

// connect serves h on one end of a pipe and returns a client on the other,
// and what cuts it.
func connect(t *testing.T, h handlerFunc) (*Client, net.Conn) {
	t.Helper()
	near, far := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- Serve(context.Background(), far, h) }()
	c := NewClient(near)
	t.Cleanup(func() {
		near.Close()
		far.Close()
		select {
		case <-served:
		case <-time.After(10 * time.Second):
			t.Error("the server did not end with its connection")
		}
	})
	if err := c.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c, near
}

// upper answers with its input in upper case and its argument on the error
// output, and exits with 3.
func upper(_ context.Context, req Request, stdio Stdio, _ <-chan syscall.Signal) Status {
	in, err := io.ReadAll(stdio.In)
	if err != nil {
		return Status{Code: -1, Err: err.Error()}
	}
	io.WriteString(stdio.Out, strings.ToUpper(string(in)))
	fmt.Fprint(stdio.Err, req.Argv)
	return Status{Code: 3}
}

func TestStreamsAndStatus(t *testing.T) {
	c, _ := connect(t, upper)
	var out, errOut bytes.Buffer
	st, err := c.Do(t.Context(), Request{Op: Exec, Argv: []string{"x", "y"}}, strings.NewReader("hello"), &out, &errOut)
	if err != nil {
		t.Fatal(err)
	}
	if st.Code != 3 || out.String() != "HELLO" || errOut.String() != "[x y]" {
		t.Errorf("status %+v, output %q, error output %q", st, &out, &errOut)
	}
	if st.Check() == nil {
		t.Error("exit status 3 passes as success")
	}
}

func TestManyLargeRequestsAtOnce(t *testing.T) {
	c, _ := connect(t, upper)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			in := strings.Repeat(string(rune('a'+i)), 3*window+i)
			var out bytes.Buffer
			_, err := c.Do(t.Context(), Request{Op: Exec}, strings.NewReader(in), &out, nil)
			if err != nil || out.String() != strings.ToUpper(in) {
				t.Errorf("request %d: %v, output of %d octets, want %d", i, err, out.Len(), len(in))
			}
		})
	}
	wg.Wait()
}

func TestUnreadOutputDoesNotBlockOthers(t *testing.T) {
	c, _ := connect(t, func(_ context.Context, req Request, stdio Stdio, _ <-chan syscall.Signal) Status {
		if req.Path == "flood" {
			for {
				if _, err := stdio.Out.Write(make([]byte, 64<<10)); err != nil {
					return Status{}
				}
			}
		}
		return Status{Code: 7}
	})
	if _, err := c.Start(Request{Op: Exec, Path: "flood"}, nil); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		st, err := c.Do(t.Context(), Request{Op: Exec}, nil, nil, nil)
		if err != nil || st.Code != 7 {
			t.Fatalf("status %+v, %v", st, err)
		}
	}
}

func TestCancelKills(t *testing.T) {
	c, _ := connect(t, func(ctx context.Context, _ Request, _ Stdio, sig <-chan syscall.Signal) Status {
		select {
		case s := <-sig:
			return Status{Code: -1, Signal: int(s)}
		case <-ctx.Done():
			return Status{Code: -1}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, err := c.Do(ctx, Request{Op: Exec}, nil, nil, nil)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want the deadline", err)
	}
	if d := time.Since(begin); d > killGrace/2 {
		t.Errorf("returned after %v, although the command died of the signal", d)
	}
	call, err := c.Start(Request{Op: Exec}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := call.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if st, err := call.Wait(t.Context(), nil, nil); err != nil || st.Signal != int(syscall.SIGHUP) {
		t.Errorf("status %+v, %v, want death by SIGHUP", st, err)
	}
}

func TestPowerCutEndsEverything(t *testing.T) {
	started := make(chan struct{})
	c, conn := connect(t, func(ctx context.Context, _ Request, stdio Stdio, _ <-chan syscall.Signal) Status {
		close(started)
		<-ctx.Done()
		return Status{}
	})
	call, err := c.Start(Request{Op: Exec}, nil)
	if err != nil {
		t.Fatal(err)
	}
	<-started
	conn.Close()
	if _, err := call.Wait(t.Context(), nil, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("a running call ended with %v, want ErrClosed", err)
	}
	<-c.Done()
	if _, err := c.Start(Request{Op: Exec}, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("a new call ended with %v, want ErrClosed", err)
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add(appendFrame(nil, frame{1, kindStdout, []byte("x")}))
	f.Add(appendFrame(nil, frame{0, kindHello, nil}))
	f.Fuzz(func(t *testing.T, in []byte) {
		fr, err := readFrame(bytes.NewReader(in))
		if err != nil {
			return
		}
		if got := appendFrame(nil, fr); !bytes.Equal(got, in[:len(got)]) {
			t.Errorf("%x was read as %+v", in, fr)
		}
	})
}

// FuzzServe feeds foreign bytes to a server: it must end, without a panic.
func FuzzServe(f *testing.F) {
	req := []byte(`{"op":"exec"}`)
	f.Add(appendFrame(appendFrame(nil, frame{1, kindRequest, req}), frame{1, kindStdin, []byte("x")}))
	f.Add(appendFrame(appendFrame(nil, frame{1, kindRequest, req}), frame{1, kindCredit, []byte{0, 0, 0, 1}}))
	f.Fuzz(func(t *testing.T, in []byte) {
		rw := struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(in), io.Discard}
		_ = Serve(context.Background(), rw, handlerFunc(upper))
	})
}
