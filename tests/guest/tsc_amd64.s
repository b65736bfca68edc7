// SPDX-License-Identifier: Apache-2.0

#include "textflag.h"

// func rdtsc() uint64
TEXT ·rdtsc(SB), NOSPLIT, $0-8
	RDTSC
	SHLQ $32, DX
	ORQ  DX, AX
	MOVQ AX, ret+0(FP)
	RET

// func spin(prev, threshold, deadline uint64) (last, now uint64)
TEXT ·spin(SB), NOSPLIT, $0-40
	MOVQ prev+0(FP), R8
	MOVQ threshold+8(FP), R9
	MOVQ deadline+16(FP), R10

loop:
	RDTSC
	SHLQ $32, DX
	ORQ  DX, AX
	MOVQ AX, R11
	SUBQ R8, R11
	CMPQ R11, R9
	JHI  out             // unsigned: a step backwards leaves too
	CMPQ AX, R10
	JHI  out
	MOVQ AX, R8
	JMP  loop

out:
	MOVQ R8, last+24(FP)
	MOVQ AX, now+32(FP)
	RET
