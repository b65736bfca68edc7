// SPDX-License-Identifier: Apache-2.0

package xenstore

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"github.com/kemari-ft/kemari/xen/abi"
)

// ops are the operations on the store, which Client and Tx have in common.
type ops struct {
	c  *Client
	tx uint32
}

func (o ops) request(typ uint32, path, payload string) ([]byte, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	return o.c.request(typ, o.tx, path, payload)
}

// checkPath rejects what would change the meaning of a request: a NUL ends the
// path. The rest of the rules are xenstored's to enforce.
func checkPath(path string) error {
	if path == "" || len(path) > abi.XenstoreAbsPathMax || strings.IndexByte(path, 0) >= 0 {
		return fmt.Errorf("xenstore: %q is not a path: %w", path, syscall.EINVAL)
	}
	return nil
}

// Read returns the value of a node.
func (o ops) Read(path string) (string, error) {
	b, err := o.request(abi.XSRead, path, path+"\x00")
	return string(b), err
}

// Write sets the value of a node, and creates it and its parents if need be.
func (o ops) Write(path, value string) error {
	_, err := o.request(abi.XSWrite, path, path+"\x00"+value)
	return err
}

// Mkdir makes sure that a node exists.
func (o ops) Mkdir(path string) error {
	_, err := o.request(abi.XSMkdir, path, path+"\x00")
	return err
}

// Rm removes a node and all below it. It is not an error if there is none; it
// is if its parent does not exist either.
func (o ops) Rm(path string) error {
	_, err := o.request(abi.XSRm, path, path+"\x00")
	return err
}

// List returns the names of a node's children.
func (o ops) List(path string) ([]string, error) {
	b, err := o.request(abi.XSDirectory, path, path+"\x00")
	if errors.Is(err, syscall.E2BIG) {
		return o.listParts(path)
	}
	if err != nil {
		return nil, err
	}
	return splitStrings(b), nil
}

// maxRestarts bounds how often a list is begun anew because the directory
// changed while it was read.
const maxRestarts = 100

// listParts reads a list in parts (DIRECTORY_PART): each answer is a generation
// and a part of the list; an empty name ends the list. See xs_directory_part()
// in tools/libs/store/xs.c.
func (o ops) listParts(path string) ([]string, error) {
	var gen string
	var list strings.Builder
	for restarts := 0; ; {
		b, err := o.request(abi.XSDirectoryPart, path, terminate(path, strconv.Itoa(list.Len())))
		if err != nil {
			return nil, err
		}
		g, part, ok := strings.Cut(string(b), "\x00")
		if !ok || part == "" {
			return nil, fmt.Errorf("xenstore: DIRECTORY_PART %s: malformed answer %q", path, b)
		}
		if list.Len() > 0 && g != gen {
			if restarts++; restarts > maxRestarts {
				return nil, fmt.Errorf("xenstore: DIRECTORY_PART %s: changed %d times while it was read: %w",
					path, restarts, syscall.EAGAIN)
			}
			list.Reset()
			continue
		}
		gen = g
		list.WriteString(part)
		if s := list.String(); s == "\x00" {
			return nil, nil
		} else if strings.HasSuffix(s, "\x00\x00") {
			return splitStrings([]byte(s[:len(s)-1])), nil
		}
	}
}

// Access is what a permission entry grants.
type Access byte

// Kinds of access.
const (
	AccessNone  Access = 'n'
	AccessRead  Access = 'r'
	AccessWrite Access = 'w'
	AccessBoth  Access = 'b'
)

// Perm is a permission entry. The first one of a node names the owner, who may
// do everything; its Access is that of all domains without an entry.
type Perm struct {
	Dom    abi.DomID
	Access Access
}

// String formats the entry as xenstored does, such as "r5".
func (p Perm) String() string { return string(p.Access) + domid(p.Dom) }

// ParsePerm parses an entry such as "r5".
func ParsePerm(s string) (Perm, error) {
	if s != "" {
		n, err := strconv.ParseUint(s[1:], 10, 16)
		switch a := Access(s[0]); a {
		case AccessNone, AccessRead, AccessWrite, AccessBoth:
			if err == nil {
				return Perm{Dom: abi.DomID(n), Access: a}, nil
			}
		}
	}
	return Perm{}, fmt.Errorf("xenstore: %q is not a permission", s)
}

// GetPerms returns the permissions of a node.
func (o ops) GetPerms(path string) ([]Perm, error) {
	b, err := o.request(abi.XSGetPerms, path, path+"\x00")
	if err != nil {
		return nil, err
	}
	var perms []Perm
	for _, s := range splitStrings(b) {
		p, err := ParsePerm(s)
		if err != nil {
			return nil, fmt.Errorf("permissions of %s: %w", path, err)
		}
		perms = append(perms, p)
	}
	return perms, nil
}

// SetPerms replaces the permissions of a node.
func (o ops) SetPerms(path string, perms ...Perm) error {
	if len(perms) == 0 {
		return fmt.Errorf("xenstore: SET_PERMS %s: a node needs an owner: %w", path, syscall.EINVAL)
	}
	payload := path + "\x00"
	for _, p := range perms {
		payload += p.String() + "\x00"
	}
	_, err := o.request(abi.XSSetPerms, path, payload)
	return err
}

// Tx is a transaction: it sees the store as it was when it began, and its
// changes happen at once or not at all.
type Tx struct{ ops }

// maxAttempts bounds how often Transaction runs its function. Other clients of
// a busy host make a few attempts normal.
const maxAttempts = 1000

// Transaction runs f in a transaction and commits it. It runs f again if other
// changes got in the way, so f must not have other effects. If f fails, nothing
// is changed and its error is returned.
func (c *Client) Transaction(f func(*Tx) error) error {
	for range maxAttempts {
		err := c.attempt(f)
		if !errors.Is(err, syscall.EAGAIN) {
			return err
		}
	}
	return fmt.Errorf("xenstore: transaction: gave up after %d attempts: %w", maxAttempts, syscall.EAGAIN)
}

func (c *Client) attempt(f func(*Tx) error) error {
	b, err := c.request(abi.XSTransactionStart, 0, "", "\x00")
	if err != nil {
		return err
	}
	id, err := strconv.ParseUint(strings.TrimRight(string(b), "\x00"), 10, 32)
	if err != nil || id == 0 {
		return fmt.Errorf("xenstore: TRANSACTION_START: xenstored answered %q", b)
	}
	t := &Tx{ops{c: c, tx: uint32(id)}}
	ended := false
	defer func() {
		if !ended { // f failed or panicked: xenstored must not keep the transaction
			_, _ = c.request(abi.XSTransactionEnd, t.tx, "", terminate("F"))
		}
	}()
	if err := f(t); err != nil {
		return err
	}
	ended = true
	_, err = c.request(abi.XSTransactionEnd, t.tx, "", terminate("T"))
	return err
}
