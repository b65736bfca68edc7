#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Runs all tests, and says at the end what ran and how long it took. A part that
# cannot run is a failure: nothing is skipped without a word.
set -u
cd "$(dirname "$0")/.." || exit 2

out=$(mktemp -d) || exit 2
trap 'rm -rf "$out"' EXIT

part() {
    name=$1
    shift
    echo "=== $name: $*"
    began=$(date +%s)
    if "$@"; then verdict=ok; else verdict=FAILED; fi
    printf '%-7s %5d s  %s\n' "$verdict" $(($(date +%s) - began)) "$name" >>"$out/report"
}

# What needs no hosts takes the time that they leave: they wait for each other, and
# for their guests.
quick() {
    part unit         nice -n 19 make -s unit
    part broken       nice -n 19 make -s broken
    part hvpatch-test nice -n 19 make -s hvpatch-test
}
{ quick >"$out/quick" 2>&1; cat "$out/quick"; } &

part exerciser   make -s exerciser
part restore-one make -s restore-one ROUNDS="${ROUNDS:-4}"
part two-hosts   make -s two-hosts N="${N:-3}"
wait

echo "=== summary"
cat "$out/report"
! grep -q '^FAILED' "$out/report"
