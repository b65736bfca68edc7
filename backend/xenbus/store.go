// SPDX-License-Identifier: Apache-2.0

package xenbus

import "github.com/kemari-ft/kemari/xen/abi"

// Store is xenstore. An error for a node that does not exist matches
// fs.ErrNotExist.
type Store interface {
	Tx
	// Transaction runs fn until it is not in conflict with anybody.
	Transaction(fn func(Tx) error) error
	// Watch delivers the path of every change at or below path, and path
	// itself at once. It ends, and closes the channel, with stop.
	Watch(path string) (changes <-chan string, stop func(), err error)
}

// Tx is what can be done in a transaction and outside of one.
type Tx interface {
	Read(path string) (string, error)
	Write(path, value string) error
	List(path string) ([]string, error)
	// Share creates path if need be, and makes it and what is created below it
	// afterwards readable for dom and writable for dom0 only.
	Share(path string, dom abi.DomID) error
}
