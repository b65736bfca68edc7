#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Runs all tests, and says at the end what ran and how long it took. A part that
# cannot run is a failure: nothing is skipped without a word.
set -u
cd "$(dirname "$0")/.." || exit 2

part() {
    name=$1
    shift
    echo "=== $name: $*"
    began=$(date +%s)
    if "$@"; then verdict=ok; else verdict=FAILED; fi
    printf '%-7s %5d s  %s\n' "$verdict" $(($(date +%s) - began)) "$name" >>"$out/report"
}

# Two hosts wait for each other, and for their guests. What waits for nothing takes
# the time that they leave, and what needs no hosts the rest.
single() {
    part exerciser   nice -n 3 make -s exerciser
    part restore-one nice -n 3 make -s restore-one ROUNDS="${ROUNDS:-4}"
}
quick() {
    part unit         nice -n 19 make -s unit
    part broken       nice -n 19 make -s broken
    part hvpatch-test nice -n 19 make -s hvpatch-test
}

# run.sh PARTS, as it calls itself: shown when they are done.
if [ $# -gt 0 ]; then
    "$1" >"$out/$1" 2>&1
    cat "$out/$1"
    exit
fi

out=$(mktemp -d) || exit 2
export out
# Of their own sessions, to be ended with all that they have begun.
setsid tests/run.sh single &
single=$!
setsid tests/run.sh quick &
quick=$!
trap 'rm -rf "$out"' EXIT
trap 'kill -- "-$single" "-$quick"; exit 1' INT TERM

part two-hosts make -s two-hosts N="${N:-3}"
wait

echo "=== summary"
cat "$out/report"
# Of all six: a part that did not get as far as to fail has not passed.
[ "$(grep -c '^ok' "$out/report")" -eq 6 ]
