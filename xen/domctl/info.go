// SPDX-License-Identifier: Apache-2.0

package domctl

import (
	"bytes"
	"fmt"
	"syscall"
	"time"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/privcmd"
)

// Info is what Xen tells about a domain (struct xen_domctl_getdomaininfo).
type Info struct {
	Domain           abi.DomID
	Flags            uint32 // abi.DomInf*
	UUID             [16]byte
	TotalPages       uint64 // allocated at present
	MaxPages         uint64 // limit
	OutstandingPages uint64 // claimed, not yet allocated
	SharedPages      uint64
	PagedPages       uint64
	SharedInfoGFN    abi.GFN // where the guest mapped shared_info, or abi.InvalidGFN
	CPUTime          time.Duration
	OnlineVCPUs      uint32
	MaxVCPUID        uint32 // abi.InvalidMaxVCPUID: none
	CPUPool          uint32
	GPAddrBits       uint8
	EmulationFlags   uint32 // abi.X86EmuLAPIC, ...
}

// Is reports whether all of the given abi.DomInf* flags are set.
func (i *Info) Is(flags uint32) bool { return i.Flags&flags == flags }

// ShutdownReason returns abi.Shutdown*, if the domain has shut down.
func (i *Info) ShutdownReason() (uint32, bool) {
	if !i.Is(abi.DomInfShutdown) {
		return 0, false
	}
	return i.Flags >> abi.DomInfShutdownShift & abi.DomInfShutdownMask, true
}

// NrVCPUs is the number of vCPUs, online or not.
func (i *Info) NrVCPUs() uint32 { return i.MaxVCPUID + 1 }

// DomainInfo describes dom (XEN_DOMCTL_getdomaininfo).
func (c *Client) DomainInfo(dom abi.DomID) (Info, error) {
	r, err := domctl[abi.DomctlDomainInfo](c, "getdomaininfo", abi.DomctlGetDomainInfo, dom, nil)
	if err != nil {
		return Info{}, err
	}
	if r.Domain != dom {
		// Before Xen 4.15 the next higher domain was described instead.
		return Info{}, c.err("domctl getdomaininfo", dom, syscall.ESRCH)
	}
	return Info{
		Domain:           r.Domain,
		Flags:            r.Flags,
		UUID:             r.Handle,
		TotalPages:       r.TotPages,
		MaxPages:         r.MaxPages,
		OutstandingPages: r.OutstandingPages,
		SharedPages:      r.ShrPages,
		PagedPages:       r.PagedPages,
		SharedInfoGFN:    r.SharedInfoFrame,
		CPUTime:          time.Duration(r.CPUTime),
		OnlineVCPUs:      r.NrOnlineVCPUs,
		MaxVCPUID:        r.MaxVCPUID,
		CPUPool:          r.CPUPool,
		GPAddrBits:       r.GPAddrBits,
		EmulationFlags:   r.ArchConfig.EmulationFlags,
	}, nil
}

// Physinfo describes the host (struct xen_sysctl_physinfo).
type Physinfo struct {
	CPUs             uint32
	CPUkHz           uint32 // TSC frequency
	Capabilities     uint32 // abi.PhysCap*
	TotalPages       uint64
	FreePages        uint64
	ScrubPages       uint64 // free, not yet scrubbed
	OutstandingPages uint64 // claimed by domains, not yet allocated
}

// Physinfo describes the host (XEN_SYSCTL_physinfo, sysctl.h).
func (c *Client) Physinfo() (Physinfo, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	op := privcmd.Struct[abi.Sysctl](c.op)
	*op = abi.Sysctl{Cmd: abi.SysctlPhysinfo, InterfaceVersion: abi.SysctlInterfaceVersion}
	if _, errno := c.h.Call(abi.HypervisorSysctl, c.op.Addr()); errno != 0 {
		return Physinfo{}, c.err("sysctl physinfo", abi.DomIDSelf, errno)
	}
	p := privcmd.StructAt[abi.SysctlPhysinfoArgs](c.op.Bytes()[sysctlUnionOffset:])
	return Physinfo{
		CPUs:             p.NrCPUs,
		CPUkHz:           p.CPUkHz,
		Capabilities:     p.Capabilities,
		TotalPages:       p.TotalPages,
		FreePages:        p.FreePages,
		ScrubPages:       p.ScrubPages,
		OutstandingPages: p.OutstandingPages,
	}, nil
}

// sysctlUnionOffset is the offset of u in struct xen_sysctl.
const sysctlUnionOffset = 8

// Version is the running Xen's version, such as 4, 20, ".3-pre".
type Version struct {
	Major, Minor uint16
	Extra        string
}

func (v Version) String() string { return fmt.Sprintf("%d.%d%s", v.Major, v.Minor, v.Extra) }

// Version asks for the running Xen's version (XENVER_version, version.h).
func (c *Client) Version() (Version, error) {
	v, errno := c.h.Call(abi.HypervisorXenVersion, abi.XenverVersion, 0)
	if errno != 0 {
		return Version{}, c.err("XENVER_version", abi.DomIDSelf, errno)
	}
	extra, err := c.versionString("XENVER_extraversion", abi.XenverExtraversion, abi.XenExtraversionLen)
	return Version{Major: uint16(v >> 16), Minor: uint16(v), Extra: extra}, err
}

// Capabilities lists the guest types that the running Xen supports, such as
// "xen-3.0-x86_64 hvm-3.0-x86_64" (XENVER_capabilities).
func (c *Client) Capabilities() (string, error) {
	return c.versionString("XENVER_capabilities", abi.XenverCapabilities, abi.XenCapabilitiesInfoLen)
}

// Features returns one 32-bit word of the features that Xen offers to the
// caller (XENVER_get_features).
func (c *Client) Features(submap uint32) (uint32, error) {
	_, r, errno := call(c, abi.HypervisorXenVersion, abi.XenverGetFeatures, abi.XenFeatureInfo{SubmapIdx: submap})
	return r.Submap, c.err("XENVER_get_features", abi.DomIDSelf, errno)
}

func (c *Client) versionString(name string, cmd uint64, n int) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.op.Bytes()[:n]
	clear(b)
	if _, errno := c.h.Call(abi.HypervisorXenVersion, cmd, c.op.Addr()); errno != 0 {
		return "", c.err(name, abi.DomIDSelf, errno)
	}
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b), nil
}
