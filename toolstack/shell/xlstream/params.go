// SPDX-License-Identifier: Apache-2.0

package xlstream

// HVM parameters.  See xen/include/public/hvm/params.h.
const (
	ParamCallbackIRQ      = 0
	ParamStorePFN         = 1
	ParamIOReqPFN         = 5
	ParamBufIOReqPFN      = 6
	ParamViridian         = 9
	ParamIdentPT          = 12
	ParamConsolePFN       = 17
	ParamACPIIOPorts      = 19
	ParamPagingRingPFN    = 27
	ParamMonitorRingPFN   = 28
	ParamSharingRingPFN   = 29
	ParamIOReqServerPFN   = 32
	ParamNrIOReqServers   = 33
	ParamVMGenerationAddr = 34
	ParamX87FIPWidth      = 36
	ParamVM86TSSSized     = 37
	ParamMCACap           = 38
)

// Params are the parameters that a stream carries, those of
// tools/libs/guest/xg_sr_save_x86_hvm.c: write_hvm_params().  One whose value
// is zero is left out.
var Params = []uint32{
	ParamStorePFN,
	ParamIOReqPFN,
	ParamBufIOReqPFN,
	ParamPagingRingPFN,
	ParamMonitorRingPFN,
	ParamSharingRingPFN,
	ParamVM86TSSSized,
	ParamConsolePFN,
	ParamACPIIOPorts,
	ParamViridian,
	ParamIdentPT,
	ParamVMGenerationAddr,
	ParamIOReqServerPFN,
	ParamNrIOReqServers,
	ParamX87FIPWidth,
	ParamMCACap,
}

// ParamsAtActivation are those that xl's streams leave out, because a guest
// that is migrated sets them again when it resumes.  Ours does not know, so
// they are read on the primary and set by HVMOP_set_param at activation.  The
// store's and the console's event channels are not among them: they are 1 and
// 2 in every domain that libxl makes, and x86_hvm_stream_complete() sets them.
var ParamsAtActivation = []uint32{ParamCallbackIRQ}
