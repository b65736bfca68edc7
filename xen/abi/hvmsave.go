// SPDX-License-Identifier: Apache-2.0

package abi

import "structs"

// Magic and version of an HVM context. See arch-x86/hvm/save.h.
const (
	HVMFileMagic   = 0x54381286
	HVMFileVersion = 1
)

// HVMSaveDescriptor is struct hvm_save_descriptor.
type HVMSaveDescriptor struct {
	_        structs.HostLayout
	Typecode uint16
	Instance uint16
	Length   uint32
}

// HVMSaveHeader is struct hvm_save_header.
type HVMSaveHeader struct {
	_         structs.HostLayout
	Magic     uint32
	Version   uint32
	Changeset uint64
	CPUID     uint32 `c:"cpuid"`
	GTSCkHz   uint32 `c:"gtsc_khz"`
}

// HVM_SAVE_CODE of each record type. See arch-x86/hvm/save.h.
const (
	HVMSaveEnd            = 0
	HVMSaveHeaderCode     = 1
	HVMSaveCPU            = 2
	HVMSavePIC            = 3
	HVMSaveIOAPIC         = 4
	HVMSaveLAPIC          = 5
	HVMSaveLAPICRegs      = 6
	HVMSavePCIIRQ         = 7
	HVMSaveISAIRQ         = 8
	HVMSavePCILink        = 9
	HVMSavePIT            = 10
	HVMSaveRTC            = 11
	HVMSaveHPET           = 12
	HVMSavePMTimer        = 13
	HVMSaveMTRR           = 14
	HVMSaveViridianDomain = 15
	HVMSaveCPUXSave       = 16
	HVMSaveViridianVCPU   = 17
	HVMSaveVMCEVCPU       = 18
	HVMSaveTSCAdjust      = 19
	HVMSaveCPUMSR         = 20
	HVMSaveCodeMax        = 20
)

// Offsets into struct hvm_hw_cpu, whose other fields nobody here needs.
const (
	HVMCPUSize      = 1032
	HVMCPUOffRIP    = 640
	HVMCPUOffRFLAGS = 648
	HVMCPUOffTSC    = 1008
)
