// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strconv"
	"syscall"

	"github.com/google/uuid"
	"github.com/kemari-ft/kemari/xen/abi"
)

// Find finds the live domain of a guest and its name; the domid is 0 if there
// is none.
func (h *Host) Find(guest uuid.UUID) (abi.DomID, string, error) {
	return h.search(func(_ abi.DomID, _ string, id uuid.UUID) bool { return id == guest })
}

// Resolve finds the domain that an operator means, by its name or its domid.
func (h *Host) Resolve(guest string) (abi.DomID, string, uuid.UUID, error) {
	var found uuid.UUID
	dom, name, err := h.search(func(dom abi.DomID, name string, id uuid.UUID) bool {
		if name != guest && strconv.Itoa(int(dom)) != guest && id.String() != guest {
			return false
		}
		found = id
		return true
	})
	if err == nil && dom == 0 {
		err = fmt.Errorf("%s is an invalid domain identifier", guest)
	}
	return dom, name, found, err
}

func (h *Host) search(is func(abi.DomID, string, uuid.UUID) bool) (abi.DomID, string, error) {
	names, err := h.Store.List("/local/domain")
	if err != nil {
		return 0, "", err
	}
	for _, n := range names {
		id, err := strconv.ParseUint(n, 10, 16)
		if err != nil || id == 0 {
			continue
		}
		dom := abi.DomID(id)
		info, err := h.Ctl.DomainInfo(dom)
		if errors.Is(err, syscall.ESRCH) {
			continue
		}
		if err != nil {
			return 0, "", err
		}
		if info.Is(abi.DomInfDying) {
			continue
		}
		name, err := h.Store.Read("/local/domain/" + n + "/name")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return 0, "", err
		}
		if is(dom, name, uuid.UUID(info.UUID)) {
			return dom, name, nil
		}
	}
	return 0, "", nil
}

// Free gives every reason why a guest could not have its domid and its names, those
// of the shell and of the guest that it may become, on this host.
func (h *Host) Free(dom abi.DomID, names ...string) error {
	var errs []error
	if _, err := h.Ctl.DomainInfo(dom); err == nil {
		errs = append(errs, fmt.Errorf("domain id %d is in use on this host", uint16(dom)))
	} else if !errors.Is(err, syscall.ESRCH) {
		errs = append(errs, err)
	}
	for _, name := range names {
		other, _, err := h.search(func(_ abi.DomID, n string, _ uuid.UUID) bool { return n == name })
		if err == nil && other != 0 {
			err = fmt.Errorf("the name %s is in use on this host, by domain %d", name, uint16(other))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Room says how much memory is missing for a guest, if it is too little. xl may
// still find enough: it can take some from dom0 (autoballoon in xl.conf(5)).
func (h *Host) Room(pages uint64) error {
	phys, err := h.Ctl.Physinfo()
	if err != nil || phys.FreePages >= pages {
		return err
	}
	const perMiB = 1 << 20 / abi.PageSize
	return fmt.Errorf("the guest has %d MiB, and %d MiB are free on this host", pages/perMiB, phys.FreePages/perMiB)
}

// Protected guests get domids from here, so that they do not meet those that
// xl counts up from 1 on either host.
const firstDomID, lastDomID = 0x1000, 0x7f00

// FreeDomID chooses a domid that is free on this host, and with luck on the
// peer: that is known when the peer makes the shell.
func (h *Host) FreeDomID() (abi.DomID, error) {
	for range 64 {
		dom := abi.DomID(firstDomID + rand.IntN(lastDomID-firstDomID))
		if _, err := h.Ctl.DomainInfo(dom); errors.Is(err, syscall.ESRCH) {
			return dom, nil
		} else if err != nil {
			return 0, err
		}
	}
	return 0, errors.New("no free domain id was found")
}
