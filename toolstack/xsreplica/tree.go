// SPDX-License-Identifier: Apache-2.0

package xsreplica

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/xenstore"
)

// Node is one node of xenstore.
type Node struct {
	Path  string // absolute
	Value string
	Perms []xenstore.Perm
}

// Watch is a watch of the guest: Path as the guest gave it, which may be
// relative to its home.
type Watch struct{ Path, Token string }

// State is what is replicated of a guest.
type State struct {
	Nodes   []Node // ascending by path, and so parents before children
	Watches []Watch
}

// Reader reads xenstore; a transaction makes what is read one instant's.
type Reader interface {
	Read(path string) (string, error)
	List(path string) ([]string, error)
	GetPerms(path string) ([]xenstore.Perm, error)
}

// Writer writes xenstore.
type Writer interface {
	List(path string) ([]string, error)
	Write(path, value string) error
	SetPerms(path string, perms ...xenstore.Perm) error
	Rm(path string) error
}

var (
	_ Reader = (*xenstore.Tx)(nil)
	_ Writer = (*xenstore.Tx)(nil)
)

// ErrContent: what a guest, or xl for it, has written to xenstore cannot be carried to
// another host. It was read well: to read it again is of no use.
var ErrContent = errors.New("it cannot be carried to another host")

// content is an error that is ErrContent, and says what is wrong.
type content struct{ error }

func (content) Is(target error) bool { return target == ErrContent }

// Snapshot reads the nodes of a domain that are replicated. An error lists every
// reason why they cannot be.
func Snapshot(r Reader, dom abi.DomID) ([]Node, error) {
	s := &snapshot{r: r, dom: dom}
	var errs []error
	for _, root := range []string{frontRoot(dom), backRoot(dom)} {
		errs = append(errs, s.walk(root))
	}
	if len(s.refused) > 0 {
		errs = append(errs, content{errors.Join(s.refused...)})
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("xenstore nodes of domain %d: %w", uint16(dom), err)
	}
	slices.SortFunc(s.nodes, func(a, b Node) int { return strings.Compare(a.Path, b.Path) })
	return s.nodes, nil
}

type snapshot struct {
	r     Reader
	dom   abi.DomID
	nodes []Node

	refused []error
}

// maxReasons bounds what is said of the nodes: the guest can make many.
const maxReasons = 16

// walk adds the node at path, if it is replicated, and all below it.
func (s *snapshot) walk(path string) error {
	if allowed(path, s.dom) {
		n, err := s.node(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
		if len(s.nodes) == maxNodes {
			return content{fmt.Errorf("more than %d", maxNodes)}
		}
		s.nodes = append(s.nodes, n)
		if err := checkNode(&n, s.dom); err != nil && len(s.refused) < maxReasons {
			s.refused = append(s.refused, err)
		}
	} else if !leadsToAllowed(path, s.dom) {
		return nil
	}
	names, err := s.r.List(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	for _, name := range names {
		if err := s.walk(path + "/" + name); err != nil {
			return err
		}
	}
	return nil
}

func (s *snapshot) node(path string) (Node, error) {
	n := Node{Path: path}
	var err error
	if n.Value, err = s.r.Read(path); err != nil {
		return n, err
	}
	n.Perms, err = s.r.GetPerms(path)
	return n, err
}

// leadsToAllowed tells whether replicated nodes lie below a node that is none.
func leadsToAllowed(path string, dom abi.DomID) bool {
	front := frontRoot(dom)
	return path == front || path == front+"/control" || path == front+"/memory"
}

// Apply makes the replicated nodes of a domain equal to nodes, which have been
// checked by Decode or come from Snapshot.  w is a transaction.
func Apply(w Writer, dom abi.DomID, nodes []Node) error {
	var gone []string
	for _, dir := range frontDirs {
		gone = append(gone, frontRoot(dom)+"/"+dir)
	}
	gone = append(gone, backRoot(dom))
	control := frontRoot(dom) + "/control"
	names, err := w.List(control)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replicate xenstore nodes of domain %d: %w", uint16(dom), err)
	}
	for _, name := range names {
		if path := control + "/" + name; allowed(path, dom) {
			gone = append(gone, path)
		}
	}
	for _, path := range gone {
		if err := w.Rm(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("replicate xenstore nodes of domain %d: %w", uint16(dom), err)
		}
	}
	for _, n := range nodes {
		err := w.Write(n.Path, n.Value)
		if err == nil && len(n.Perms) > 0 {
			err = w.SetPerms(n.Path, n.Perms...)
		}
		if err != nil {
			return fmt.Errorf("replicate xenstore nodes of domain %d: %w", uint16(dom), err)
		}
	}
	return nil
}

// Roots are the directories below which lies all that is replicated.
func Roots(dom abi.DomID) []string { return []string{frontRoot(dom), backRoot(dom)} }
