// SPDX-License-Identifier: Apache-2.0

// Package xlcfg parses the syntax of xl's configuration files (xl.cfg(5)):
// settings NAME=VALUE and NAME+=VALUE, where a value is a quoted string, a
// number, or a list of values in brackets.  The grammar is that of
// tools/libs/util/libxlu_cfg_l.l and libxlu_cfg_y.y.
//
// It differs from xl in two places, on purpose.  A comment may end the file
// without a newline.  Numerical escapes in strings (\x41, \101) are errors: xl
// accepts them and silently drops the character.
package xlcfg
