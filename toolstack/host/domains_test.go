// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"testing"

	"github.com/google/uuid"
	"github.com/kemari-ft/kemari/toolstack/secondary/hosttest"
	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/kemariop"
)

// said is what an operator reads of an error.
func said(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestFree: a domid and a name are taken each for itself, and no longer than the
// domain is there.
func TestFree(t *testing.T) {
	const (
		byID   = "domain id 4242 is in use on this host"
		byName = "the name web is in use on this host, by domain 4242"
	)
	d := hosttest.New(t, uuid.New(), "web", false, kemariop.RoleNone)
	for _, tc := range []struct {
		dom   abi.DomID
		names []string
		want  string
	}{
		{7, []string{"db", "db--kemari"}, ""},
		{hosttest.DomID, []string{"db", "db--kemari"}, byID},
		{7, []string{"web", "web--kemari"}, byName},
		{7, []string{"we", "web"}, byName},
		{hosttest.DomID, []string{"web", "web--kemari"}, byID + "\n" + byName},
	} {
		if got := said(d.Host.Free(tc.dom, tc.names...)); got != tc.want {
			t.Errorf("domid %d, names %q: got %q, want %q", uint16(tc.dom), tc.names, got, tc.want)
		}
	}
	d.Destroy()
	if err := d.Host.Free(hosttest.DomID, "web"); err != nil {
		t.Errorf("the domain is gone: %v", err)
	}
}

// TestRoom: what is missing is said in the operator's unit, and nothing if nothing is.
func TestRoom(t *testing.T) {
	const perMiB = 1 << 20 / abi.PageSize
	d := hosttest.New(t, uuid.New(), "web", false, kemariop.RoleNone)
	d.FreePages = 128 * perMiB
	for pages, want := range map[uint64]string{
		128 * perMiB:   "",
		128*perMiB + 1: "the guest has 128 MiB, and 128 MiB are free on this host",
		512 * perMiB:   "the guest has 512 MiB, and 128 MiB are free on this host",
	} {
		if got := said(d.Host.Room(pages)); got != want {
			t.Errorf("%d pages: got %q, want %q", pages, got, want)
		}
	}
}
