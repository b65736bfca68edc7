// SPDX-License-Identifier: Apache-2.0

package kemariop

import (
	"errors"
	"os"
	"strconv"
	"testing"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/privcmd"
)

// TestStatusOnXen asks a running Xen about the guest named by XEN_TEST_DOMID.
func TestStatusOnXen(t *testing.T) {
	n, err := strconv.ParseUint(os.Getenv("XEN_TEST_DOMID"), 10, 15)
	if err != nil || n == 0 {
		t.Skip("XEN_TEST_DOMID names no guest")
	}
	h, err := privcmd.Open()
	if err != nil {
		t.Skip(err)
	}
	defer h.Close()
	c, err := New(h, abi.DomID(n))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := c.Status()
	if errors.Is(err, ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", s)
	if s.Role == RoleNone && s.State != 0 {
		t.Error("a domain that is not enabled has a state")
	}
}
