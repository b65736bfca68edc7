// SPDX-License-Identifier: Apache-2.0

package xsreplica

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/xenstore"
)

func frontRoot(dom abi.DomID) string { return fmt.Sprintf("/local/domain/%d", uint16(dom)) }
func backRoot(dom abi.DomID) string {
	return fmt.Sprintf("/local/domain/0/backend/vbd3/%d", uint16(dom))
}

// hostLocal are nodes of a back end that name things of its host; the block
// script and kemarid make them anew.
var hostLocal = map[string]bool{
	"physical-device":      true,
	"physical-device-path": true,
	"hotplug-status":       true,
	"hotplug-error":        true,
}

// Limits: xenstored's own (xs_wire.h), and what bounds a blob from the peer.
const (
	maxPath    = abi.XenstoreAbsPathMax
	maxValue   = abi.XenstorePayloadMax
	maxPerms   = 16
	maxNodes   = 8192
	maxWatches = 1024
)

// The characters that xenstored allows in paths.
var validPath = regexp.MustCompile(`^(/[A-Za-z0-9_@-]+)+$`)

// allowed tells whether the node at path belongs to what is replicated.
func allowed(path string, dom abi.DomID) bool {
	if len(path) > maxPath || !validPath.MatchString(path) {
		return false
	}
	if rest, ok := strings.CutPrefix(path, frontRoot(dom)+"/"); ok {
		for _, dir := range frontDirs {
			if rest == dir || strings.HasPrefix(rest, dir+"/") {
				return true
			}
		}
		feature, ok := strings.CutPrefix(rest, "control/feature-")
		return rest == "memory/target" || ok && !strings.Contains(feature, "/")
	}
	if path == backRoot(dom) {
		return true
	}
	rest, ok := strings.CutPrefix(path, backRoot(dom)+"/")
	_, key, _ := strings.Cut(rest, "/")
	return ok && !hostLocal[key]
}

// blockScript is the script of kemarid's disks; libxl runs the one that
// the back end's directory names as root when the device is removed.
const blockScript = "/etc/xen/scripts/block-kemari"

// checkNode says what is wrong with a node: it comes from the peer, and is
// written by the toolstack, with the toolstack's authority.
func checkNode(n *Node, dom abi.DomID) error {
	if !allowed(n.Path, dom) {
		return fmt.Errorf("node %.100q of domain %d is not one that is replicated", n.Path, uint16(dom))
	}
	if len(n.Value) > maxValue {
		return fmt.Errorf("node %s: value of %d bytes", n.Path, len(n.Value))
	}
	if len(n.Perms) == 0 || len(n.Perms) > maxPerms {
		return fmt.Errorf("node %s: %d permissions", n.Path, len(n.Perms))
	}
	for _, p := range n.Perms {
		switch p.Access {
		case xenstore.AccessNone, xenstore.AccessRead, xenstore.AccessWrite, xenstore.AccessBoth:
		default:
			return fmt.Errorf("node %s: access %q", n.Path, string(p.Access))
		}
		if p.Dom != 0 && p.Dom != dom {
			return fmt.Errorf("node %s: permission for domain %d, which is neither the guest nor domain 0", n.Path, uint16(p.Dom))
		}
	}
	return checkLink(n, dom)
}

// checkLink checks the nodes by which front end and back end name each other:
// they must not lead to another domain's device.
func checkLink(n *Node, dom abi.DomID) error {
	expect := func(want string) error {
		if n.Value != want {
			return fmt.Errorf("node %s: %.100q, expected %q", n.Path, n.Value, want)
		}
		return nil
	}
	self := strconv.Itoa(int(dom))
	if rest, ok := strings.CutPrefix(n.Path, frontRoot(dom)+"/device/"); ok {
		part := strings.Split(rest, "/")
		if len(part) != 3 {
			return nil
		}
		switch part[2] {
		case "backend":
			switch part[0] {
			case "vbd":
			case "vif":
				return fmt.Errorf("device vif/%s: network devices (vif) cannot be protected yet", part[1])
			default:
				return fmt.Errorf("device %s/%s: this class of device cannot be protected", part[0], part[1])
			}
			return expect(backRoot(dom) + "/" + part[1])
		case "backend-id":
			return expect("0")
		}
	}
	if rest, ok := strings.CutPrefix(n.Path, backRoot(dom)+"/"); ok {
		dev, key, _ := strings.Cut(rest, "/")
		switch key {
		case "frontend":
			return expect(frontRoot(dom) + "/device/vbd/" + dev)
		case "frontend-id":
			return expect(self)
		case "script":
			return expect(blockScript)
		}
	}
	return nil
}
