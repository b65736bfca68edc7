// SPDX-License-Identifier: Apache-2.0

// Package xlstream fabricates the save file from which xl restore makes a
// shell: a paused PVH domain with a given domid, all of its memory populated
// but empty, and everything about it in libxl's records that xl list, console,
// shutdown and destroy need.  What the memory holds is written later, through
// foreign mappings.
//
// A save file is four formats inside each other:
//
//	xl header         tools/xl/xl.h: struct save_file_header, domain JSON
//	  libxl stream    docs/specs/libxl-migration-stream.pandoc, version 2
//	    libxc stream  docs/specs/libxc-migration-stream.pandoc, version 3
//	      records     HVM context and parameters, page lists, TSC
//
// The package also judges the domain JSON.  It comes from the peer and reaches
// xl, which runs as root, so every key in it is decided here: allowed with
// bounds, or refused with the reason.
//
// Nothing in this package does I/O, except Write to the writer it is given.
package xlstream
