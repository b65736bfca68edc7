// SPDX-License-Identifier: Apache-2.0

package shell

import (
	"io"
	"testing"

	"github.com/kemari-ft/kemari/toolstack/shell/xlstream"
)

// FuzzDecodeDescription: of whatever a primary says of a guest, what is accepted
// becomes a stream for xl, and is said again as it was.
func FuzzDecodeDescription(f *testing.F) {
	guest := testGuest(f)
	config, err := guest.Config.Active()
	if err != nil {
		f.Fatal(err)
	}
	seed, err := (&Description{
		Config: config, DomID: guest.DomID, XenMajor: guest.XenMajor, XenMinor: guest.XenMinor,
		RAM: guest.RAM, TSC: guest.TSC, Params: guest.Params, HVMContext: guest.HVMContext,
	}).Encode()
	if err != nil {
		f.Fatal(err)
	}
	if _, g, err := DecodeDescription(seed); err != nil || g.Check() != nil {
		f.Fatal("the seed is not accepted: ", err, g.Check())
	}
	f.Add(seed)
	f.Add([]byte(`{"Config":{},"RAM":[{"First":18446744073709551615,"Count":2}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, g, err := DecodeDescription(b)
		if err != nil || g.Check() != nil {
			return
		}
		const large = 1 << 20 // kB; its list of pages would take too long
		if g.Config.TargetMemKB() > large {
			return
		}
		if err := xlstream.Write(io.Discard, g); err != nil {
			t.Fatalf("accepted, but no stream comes of it: %v", err)
		}
		again, err := d.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := DecodeDescription(again); err != nil {
			t.Fatalf("own output refused: %v", err)
		}
	})
}
