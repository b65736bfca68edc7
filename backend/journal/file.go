// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Journal is a mapped journal file.
type Journal struct {
	path   string
	cfg    Config
	mem    []byte
	queues []*Queue
}

// Create makes a new journal at path, in place of whatever was there. start is
// called with each queue before the file gets its name, so a journal is either
// there with everything in it or not at all.
func Create(path string, c Config, start func(n int, q *Queue)) (j *Journal, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("creating the request journal %s: %w (is /run a writable tmpfs?)", path, err)
		}
	}()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// Allocated, not only sized: a store into a hole of a full file system
	// would kill the process.
	if err := unix.Fallocate(int(f.Fd()), 0, 0, int64(c.size())); err != nil {
		return nil, errors.Join(fmt.Errorf("allocating %d bytes: %w", c.size(), err), os.Remove(tmp))
	}
	j, err = mapFile(f, path, c)
	if err != nil {
		return nil, errors.Join(err, os.Remove(tmp))
	}
	h := c.header()
	copy(j.mem, h[:])
	for n, q := range j.queues {
		start(n, q)
	}
	if err := os.Rename(tmp, path); err != nil {
		return nil, errors.Join(err, j.Close(), os.Remove(tmp))
	}
	return j, nil
}

// Open opens the journal a killed back end left at path. The error matches
// fs.ErrNotExist when there is none, and ErrForeign when it belongs to another
// connection.
func Open(path string, c Config) (*Journal, error) {
	fail := func(err error) (*Journal, error) {
		return nil, fmt.Errorf("opening the request journal %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return fail(fs.ErrNotExist)
	} else if err != nil {
		return fail(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return fail(err)
	}
	if st.Size() < HeaderSize {
		return fail(fmt.Errorf("%d bytes are too few for a journal", st.Size()))
	}
	// The header first: it must be believed before the file is taken for as
	// long as the shape says.
	head := make([]byte, HeaderSize)
	if _, err := f.ReadAt(head, 0); err != nil {
		return fail(err)
	}
	if err := c.check(head, st.Size()); err != nil {
		return fail(err)
	}
	j, err := mapFile(f, path, c)
	if err != nil {
		return fail(err)
	}
	return j, nil
}

func mapFile(f *os.File, path string, c Config) (*Journal, error) {
	mem, err := unix.Mmap(int(f.Fd()), 0, c.size(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mapping %d bytes: %w", c.size(), err)
	}
	j := &Journal{path: path, cfg: c, mem: mem}
	for n := range c.Queues {
		j.queues = append(j.queues, c.queue(mem, n))
	}
	return j, nil
}

// Queue returns the journal of ring n.
func (j *Journal) Queue(n int) *Queue { return j.queues[n] }

// Close unmaps the journal and leaves the file.
func (j *Journal) Close() error {
	if err := unix.Munmap(j.mem); err != nil {
		return fmt.Errorf("unmapping the request journal %s: %w", j.path, err)
	}
	return nil
}

// Remove closes the journal and deletes its file: the front end is gone.
func (j *Journal) Remove() error {
	return errors.Join(j.Close(), os.Remove(j.path))
}
