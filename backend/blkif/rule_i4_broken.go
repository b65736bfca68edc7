// SPDX-License-Identifier: Apache-2.0

//go:build broken_i4

package blkif

import (
	"time"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/gntdev"
)

// moveData breaks invariant I4 on purpose, so that its test can be seen to
// fail: what is read goes into the guest through mappings that stay for a
// while, as blkback's persistent grants do. Xen notes such a write when the
// page is unmapped, epochs later.
func (d *Device) moveData(segs []gntdev.CopySegment) error {
	for k := range segs {
		s := &segs[k]
		if !s.ToGuest {
			if err := d.cfg.Grants.Copy(segs[k : k+1]); err != nil {
				return err
			}
			continue
		}
		m, err := d.cfg.Grants.Map(s.Dom, []abi.GrantRef{s.Ref})
		if err != nil {
			return err
		}
		copy(m.Bytes()[s.Offset:], s.Local)
		s.Status = int16(abi.GNTSTOkay)
		time.AfterFunc(time.Second, func() {
			if err := m.Close(); err != nil {
				d.report(err)
			}
		})
	}
	return nil
}
