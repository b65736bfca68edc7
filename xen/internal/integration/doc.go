// SPDX-License-Identifier: Apache-2.0

// Package integration tests the xen packages on a running Xen. Build its test
// binary and run it as root in dom0:
//
//	go test -c -o xentest ./xen/internal/integration
//	XEN_TEST_DOMID=5 ./xentest -test.v
//
// Without Xen everything is skipped. XEN_TEST_DOMID names a running PVH guest,
// which is read and briefly paused, not changed.
package integration
