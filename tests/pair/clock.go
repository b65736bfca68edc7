// SPDX-License-Identifier: Apache-2.0

package pair

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/kemari-ft/kemari/tools/lab/lab"
)

// Ahead is by how much dom0's clock is ahead of the lab's, to some
// milliseconds.
func Ahead(ctx context.Context, h *lab.Host) (time.Duration, error) {
	var best, ahead time.Duration
	for i := range 5 {
		before := time.Now()
		out, err := h.Run(ctx, "date", "+%s%N")
		if err != nil {
			return 0, err
		}
		took := time.Since(before)
		ns, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("host %s: date +%%s%%N printed %q", h.Name, out)
		}
		if i == 0 || took < best {
			best, ahead = took, time.Unix(0, ns).Sub(before.Add(took/2))
		}
	}
	return ahead, nil
}
