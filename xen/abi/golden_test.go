// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"testing"

	"github.com/kemari-ft/kemari/xen/internal/abitest"
)

// TestGolden compares every struct and number of this package with what gcc
// made of Xen 4.20's headers.
func TestGolden(t *testing.T) {
	abitest.Check(t, abitest.Spec{
		Golden: "abi-x86_64-xen4.20.txt",
		Headers: []string{
			"public/xen.h", "public/domctl.h", "public/sysctl.h", "public/memory.h",
			"public/grant_table.h", "public/event_channel.h", "public/sched.h",
			"public/version.h", "public/hvm/hvm_op.h", "public/hvm/params.h",
			"public/hvm/save.h", "public/arch-x86/cpuid.h", "public/io/ring.h",
			"public/io/blkif.h", "public/io/netif.h", "public/io/xenbus.h",
			"public/io/console.h", "public/io/xs_wire.h",
			"xen-sys/Linux/privcmd.h", "xen-sys/Linux/evtchn.h", "xen-sys/Linux/gntdev.h",
		},
		Structs: []abitest.Struct{
			{C: "struct xen_domctl", Go: Domctl{}},
			{C: "struct xen_arch_domainconfig", Go: ArchDomainConfig{}},
			{C: "struct xen_domctl_getdomaininfo", Go: DomctlDomainInfo{}},
			{C: "struct xen_domctl_shadow_op", Go: DomctlShadowOpArgs{}},
			{C: "struct xen_domctl_hvmcontext", Go: DomctlHVMContext{}},
			{C: "struct xen_domctl_tsc_info", Go: DomctlTSCInfo{}},
			{C: "struct xen_domctl_sendtrigger", Go: DomctlSendTriggerArgs{}},
			{C: "struct xen_domctl_paging_mempool", Go: DomctlPagingMempool{}},
			{C: "struct xen_sysctl", Go: Sysctl{}},
			{C: "struct xen_sysctl_physinfo", Go: SysctlPhysinfoArgs{}},
			{C: "struct sched_remote_shutdown", Go: SchedRemoteShutdown{}},
			{C: "struct xen_feature_info", Go: XenFeatureInfo{}},
			{C: "struct xen_memory_reservation", Go: MemoryReservation{}},
			{C: "struct xen_memory_domain", Go: MemoryDomain{}},
			{C: "struct xen_add_to_physmap", Go: AddToPhysmap{}},
			{C: "struct xen_remove_from_physmap", Go: RemoveFromPhysmap{}},
			{C: "struct evtchn_status", Go: EvtchnStatus{}},
			{C: "struct evtchn_alloc_unbound", Go: EvtchnAllocUnbound{}},
			{C: "struct xen_hvm_param", Go: HVMParam{}},
			{C: "struct grant_entry_v1", Go: GrantEntryV1{}},
			{C: "struct gnttab_setup_table", Go: GnttabSetupTable{}},
			{C: "struct gnttab_query_size", Go: GnttabQuerySize{}},
			{C: "struct blkif_sring", Go: SringHeader{}},
			{C: "struct netif_tx_sring", Go: SringHeader{}},
			{C: "struct netif_rx_sring", Go: SringHeader{}},
			{C: "struct blkif_request_segment", Go: BlkifRequestSegment{}},
			{C: "struct blkif_request", Go: BlkifRequest{}},
			{C: "struct blkif_request_discard", Go: BlkifRequestDiscard{}},
			{C: "struct blkif_request_indirect", Go: BlkifRequestIndirect{}},
			{C: "struct blkif_response", Go: BlkifResponse{}},
			{C: "struct netif_tx_request", Go: NetifTxRequest{}},
			{C: "struct netif_tx_response", Go: NetifTxResponse{}},
			{C: "struct netif_rx_request", Go: NetifRxRequest{}},
			{C: "struct netif_rx_response", Go: NetifRxResponse{}},
			{C: "struct netif_extra_info", Go: NetifExtraInfo{}},
			{C: "struct xencons_interface", Go: XenconsInterface{}},
			{C: "struct xsd_sockmsg", Go: XsdSockmsg{}},
			{C: "struct xenstore_domain_interface", Go: XenstoreDomainInterface{}},
			{C: "struct hvm_save_descriptor", Go: HVMSaveDescriptor{}},
			{C: "struct hvm_save_header", Go: HVMSaveHeader{}},
			{C: "struct privcmd_hypercall", Go: PrivcmdHypercall{}},
			{C: "struct privcmd_mmapbatch_v2", Go: PrivcmdMmapBatchV2{}},
			{C: "struct privcmd_mmap_resource", Go: PrivcmdMmapResource{}},
			{C: "struct ioctl_evtchn_bind_interdomain", Go: EvtchnBindInterdomain{}},
			{C: "struct ioctl_gntdev_grant_ref", Go: GntdevGrantRef{}},
			{C: "struct ioctl_gntdev_map_grant_ref", Go: GntdevMapGrantRef{}},
			{C: "struct ioctl_gntdev_unmap_grant_ref", Go: GntdevUnmapGrantRef{}},
			{C: "struct ioctl_gntdev_grant_copy_segment", Go: GntdevCopySegment{}},
			{C: "struct ioctl_gntdev_grant_copy", Go: GntdevGrantCopy{}},
		},
		Consts: consts,
	})
}

// TestForeign pins the packing of the union member that GntdevForeign builds:
// ref at byte 0, offset at 4, domid at 6.
func TestForeign(t *testing.T) {
	if got, want := GntdevForeign(0x11223344, 0x5566, 0x7788), uint64(0x7788556611223344); got != want {
		t.Errorf("GntdevForeign = %#x, want %#x", got, want)
	}
}

func TestNames(t *testing.T) {
	if got := GNTSTBadGntref.String(); got != "GNTST_bad_gntref" {
		t.Error(got)
	}
	if got := GrantStatus(-99).String(); got != "GNTST_-99" {
		t.Error(got)
	}
	if got := XenbusConnected.String(); got != "Connected" {
		t.Error(got)
	}
	if got := XenbusState(99).String(); got != "Invalid" {
		t.Error(got)
	}
	if got := DomID(7).String(); got != "d7" {
		t.Error(got)
	}
}
