// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io"
	"os"
	"time"
)

// linger is how long output may stay away, once the command has ended, before
// it counts as complete although some process still holds the pipe open.
const linger = 200 * time.Millisecond

// copyOutput copies r to w until the last writer closed r, or until the
// command ended (which setting r's read deadline tells) and nothing came for a
// while: a daemon that the command started may keep the pipe for ever.
func copyOutput(w io.Writer, r *os.File) {
	defer r.Close()
	buf := make([]byte, 32<<10)
	lastChance := false
	for {
		n, err := r.Read(buf)
		if n > 0 {
			lastChance = false
			if _, err := w.Write(buf[:n]); err != nil {
				return // the lab is gone
			}
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && !lastChance:
			// A deadline that passed hides what is still in the pipe.
			lastChance = true
			if r.SetReadDeadline(time.Now().Add(linger)) != nil {
				return
			}
		case err != nil:
			return
		}
	}
}
