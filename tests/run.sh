#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Runs all tests, and says at the end what ran and how long it took. A part that
# cannot run is a failure: nothing is skipped without a word.
set -u
cd "$(dirname "$0")/.." || exit 2

failed=
report=
part() {
    name=$1
    shift
    echo "=== $name: $*"
    began=$(date +%s)
    if "$@"; then verdict=ok; else verdict=FAILED; failed="$failed $name"; fi
    report="$report
$(printf '%-7s %5d s  %s' "$verdict" $(($(date +%s) - began)) "$name")"
}

part unit         make -s unit
part broken       make -s broken
part hvpatch-test make -s hvpatch-test
part exerciser    make -s exerciser
part restore-one  make -s restore-one ROUNDS="${ROUNDS:-4}"
part two-hosts    make -s two-hosts N="${N:-3}"

echo "=== summary$report"
if [ -n "$failed" ]; then
    echo "failed:$failed"
    exit 1
fi
