// SPDX-License-Identifier: Apache-2.0

package kemariop

import (
	"structs"
	"testing"

	"github.com/kemari-ft/kemari/xen/abi"
	"github.com/kemari-ft/kemari/xen/internal/abitest"
)

// The C layouts of the state records, which records.go encodes by hand.
type (
	recC struct {
		_        structs.HostLayout
		Type     uint16
		Instance uint16
		Length   uint32
	}
	domainC struct {
		_             structs.HostLayout
		Version       uint32
		NrVCPUs       uint32 `c:"nr_vcpus"`
		EvtchnABI     uint32
		GrantFrames   uint32
		VMAssist      uint64
		SharedInfoGFN uint64
		GuestTime     uint64
		CallbackIRQ   uint64 `c:"callback_irq"`
	}
	vcpuC struct {
		_              structs.HostLayout
		Flags          uint32
		UpcallVector   uint8
		Pad            [3]uint8
		VCPUInfo       uint64 `c:"vcpu_info"`
		Runstate       uint64
		TimeArea       uint64
		RunstateTime   [4]uint64
		SshotExpires   uint64
		PeriodicPeriod uint64
		IntrShadow     uint64
		PendingDbg     uint64
		FIFOControl    uint64
		FIFOTail       [16]uint32
	}
	evtchnC struct {
		_             structs.HostLayout
		Port          abi.Port
		Status        uint8
		Priority      uint8
		VCPU          uint16 `c:"vcpu"`
		LastqVCPU     uint16 `c:"lastq_vcpu"`
		LastqPriority uint8
		Pending       uint8
		U             uint32
	}
)

// TestGolden compares the declarations of this package with what gcc made of
// the patched hypervisor's headers.
func TestGolden(t *testing.T) {
	abitest.Check(t, abitest.Spec{
		Golden:  "kemari-abi-x86_64.txt",
		Headers: []string{"public/domctl.h", "public/memory.h", "public/kemari.h"},
		Structs: []abitest.Struct{
			{C: "struct xen_domctl_kemari_op", Go: domctlKemariOp{}},
			{C: "struct xen_kemari_enable", Go: enableArgs{}},
			{C: "struct xen_kemari_status", Go: statusArgs{}},
			{C: "struct xen_kemari_tap", Go: tapArgs{}},
			{C: "struct xen_kemari_sync", Go: SyncResult{}},
			{C: "struct xen_kemari_release", Go: releaseArgs{}},
			{C: "struct xen_kemari_state", Go: stateArgs{}},
			{C: "struct xen_kemari_gfns", Go: gfnArgs{}},
			{C: "struct xen_kemari_shared", Go: sharedHeader{}},
			{C: "struct xen_kemari_rec", Go: recC{}},
			{C: "struct xen_kemari_domain", Go: domainC{}},
			{C: "struct xen_kemari_vcpu", Go: vcpuC{}},
			{C: "struct xen_kemari_evtchn", Go: evtchnC{}},
		},
		Consts: consts,
	})
}

// consts pairs each number with the C expression it must equal.
var consts = []abitest.Const{
	{C: "XEN_KEMARI_VERSION", Go: InterfaceVersion},
	{C: "XEN_DOMCTL_kemari_op", Go: DomctlKemariOp},
	{C: "XENMEM_resource_kemari", Go: ResourceKemari},
	{C: "XEN_KEMARI_OP_enable", Go: opEnable},
	{C: "XEN_KEMARI_OP_disable", Go: opDisable},
	{C: "XEN_KEMARI_OP_tap", Go: opTap},
	{C: "XEN_KEMARI_OP_sync", Go: opSync},
	{C: "XEN_KEMARI_OP_release", Go: opRelease},
	{C: "XEN_KEMARI_OP_deliver", Go: opDeliver},
	{C: "XEN_KEMARI_OP_set_state", Go: opSetState},
	{C: "XEN_KEMARI_OP_resume", Go: opResume},
	{C: "XEN_KEMARI_OP_status", Go: opStatus},
	{C: "XEN_KEMARI_OP_hot", Go: opHot},
	{C: "XEN_KEMARI_OP_warm", Go: opWarm},
	{C: "XEN_KEMARI_ROLE_NONE", Go: RoleNone},
	{C: "XEN_KEMARI_ROLE_PRIMARY", Go: RolePrimary},
	{C: "XEN_KEMARI_ROLE_SECONDARY", Go: RoleSecondary},
	{C: "XEN_KEMARI_TRIGGERED", Go: StateTriggered},
	{C: "XEN_KEMARI_FROZEN", Go: StateFrozen},
	{C: "XEN_KEMARI_HARVESTED", Go: StateHarvested},
	{C: "XEN_KEMARI_UNCOMMITTED", Go: StateUncommitted},
	{C: "XEN_KEMARI_HELD", Go: StateHeld},
	{C: "XEN_KEMARI_STATE_SET", Go: StateSet},
	{C: "XEN_KEMARI_TAP_HOLD", Go: TapHold},
	{C: "XEN_KEMARI_TAP_PASS", Go: TapPass},
	{C: "XEN_KEMARI_LOST", Go: SyncLost},
	{C: "XEN_KEMARI_SYNC_HARVEST", Go: syncHarvest},
	{C: "XEN_KEMARI_RELEASE_OUT", Go: ReleaseOut},
	{C: "XEN_KEMARI_RELEASE_UNPAUSE", Go: ReleaseUnpause},
	{C: "XEN_KEMARI_STATE_MAX", Go: StateMax},
	{C: "XEN_KEMARI_HOT_MAX", Go: HotMax},
	{C: "XEN_KEMARI_WARM_MAX", Go: WarmMax},
	{C: "XEN_KEMARI_NEAR", Go: Near},
	{C: "XEN_KEMARI_MAGIC", Go: magic},
	{C: "XEN_KEMARI_MAX_PORTS", Go: MaxPorts},
	{C: "XEN_KEMARI_TRIGGER_NONE", Go: TriggerNone},
	{C: "XEN_KEMARI_TRIGGER_EVENT", Go: TriggerEvent},
	{C: "XEN_KEMARI_TRIGGER_MARK", Go: TriggerMark},
	{C: "XEN_KEMARI_TRIGGER_SYNC", Go: TriggerSync},
	{C: "XEN_KEMARI_TRIGGER_HELD", Go: TriggerHeld},
	{C: "XEN_KEMARI_DIRTY_P2M", Go: uint64(DirtyP2M)},
	{C: "XEN_KEMARI_DIRTY_GFN_MASK", Go: uint64(dirtyMask)},
	{C: "XEN_KEMARI_ALWAYS_GFN_MASK", Go: uint64(alwaysGFNMask)},
	{C: "XEN_KEMARI_ALWAYS_INDEX(~0ULL)", Go: alwaysIdxMask},
	{C: "XEN_KEMARI_ALWAYS_INDEX(1ULL << 44)", Go: uint64(1) << 44 >> alwaysIdxShift},
	{C: "XEN_KEMARI_ALWAYS_KIND(1ULL << 56)", Go: uint64(1) << 56 >> alwaysKindShift},
	{C: "XEN_KEMARI_ALWAYS_SHINFO", Go: AlwaysSharedInfo},
	{C: "XEN_KEMARI_ALWAYS_GRANT", Go: AlwaysGrant},
	{C: "XEN_KEMARI_ALWAYS_FIFO", Go: AlwaysFIFO},
	{C: "XEN_KEMARI_ALWAYS_VCPU", Go: AlwaysVCPU},
	{C: "sizeof(struct xen_kemari_rec)", Go: recHeaderLen},
	{C: "sizeof(struct xen_kemari_domain)", Go: domainLen},
	{C: "sizeof(struct xen_kemari_vcpu)", Go: vcpuLen},
	{C: "sizeof(struct xen_kemari_evtchn)", Go: evtchnLen},
	{C: "XEN_KEMARI_REC_END", Go: recEnd},
	{C: "XEN_KEMARI_REC_DOMAIN", Go: recDomain},
	{C: "XEN_KEMARI_REC_FIFO", Go: recFIFO},
	{C: "XEN_KEMARI_REC_VCPU", Go: recVCPU},
	{C: "XEN_KEMARI_REC_EVTCHN", Go: recEvtchn},
	{C: "XEN_KEMARI_REC_HVM", Go: recHVM},
	{C: "XEN_KEMARI_NO_ADDR", Go: NoAddr},
	{C: "XEN_KEMARI_VCPU_UP", Go: VCPUUp},
	{C: "XEN_KEMARI_VCPU_NMI", Go: VCPUNMI},
	{C: "XEN_KEMARI_VCPU_SSHOT", Go: VCPUSshot},
	{C: "XEN_KEMARI_VCPU_RUN_PHYS", Go: VCPURunPhys},
	{C: "XEN_KEMARI_VCPU_TIME_PHYS", Go: VCPUTimePhys},
}
