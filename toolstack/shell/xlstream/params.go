// SPDX-License-Identifier: Apache-2.0

package xlstream

// HVM parameters.  See xen/include/public/hvm/params.h.
const (
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
