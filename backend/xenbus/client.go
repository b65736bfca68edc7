// SPDX-License-Identifier: Apache-2.0

package xenbus

import (
	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/xenstore"
)

// XenStore is a Store over a connection to xenstored.
func XenStore(c *xenstore.Client) Store { return client{tx{c}, c} }

// nodes is what *xenstore.Client and *xenstore.Tx have in common.
type nodes interface {
	Read(path string) (string, error)
	Write(path, value string) error
	Mkdir(path string) error
	List(path string) ([]string, error)
	SetPerms(path string, perms ...xenstore.Perm) error
}

type tx struct{ nodes }

func (t tx) Share(path string, dom abi.DomID) error {
	if err := t.Mkdir(path); err != nil {
		return err
	}
	// The first entry names the owner and what everybody else may do.
	return t.SetPerms(path,
		xenstore.Perm{Dom: abi.Dom0, Access: xenstore.AccessNone},
		xenstore.Perm{Dom: dom, Access: xenstore.AccessRead})
}

type client struct {
	tx
	c *xenstore.Client
}

func (c client) Transaction(fn func(Tx) error) error {
	return c.c.Transaction(func(t *xenstore.Tx) error { return fn(tx{t}) })
}

func (c client) Watch(path string) (<-chan string, func(), error) {
	w, err := c.c.Watch(path)
	if err != nil {
		return nil, nil, err
	}
	changes := make(chan string)
	done := make(chan struct{})
	go func() {
		defer close(changes)
		for e := range w.C {
			select {
			case changes <- e.Path:
			case <-done:
				return
			}
		}
	}()
	stop := func() {
		close(done)
		// Fails only with the connection, and then there is no watch.
		_ = w.Close()
	}
	return changes, stop, nil
}
