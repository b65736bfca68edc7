// SPDX-License-Identifier: Apache-2.0

// Package config reads kemari.conf(5), the configuration of a host, and the
// ft keys of a guest's xl.cfg(5).  Both have xl's syntax.  What is wrong with a
// file is told all at once, each with its line and with what is allowed there.
package config
