#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Breaks one invariant at a time (build tags broken_i7, broken_i8, ...) and
# expects the named test to notice.  A test that passes here proves nothing.
# What the hypervisor does is broken by hvpatch/tests/Makefile.
#
#   tests/broken.sh [INVARIANT...]      for example: tests/broken.sh i8 i12
set -u
cd "$(dirname "$0")/.." || exit 2

# invariant and, after _, which of its rules; package, test
list='
i1  ./backend/gate       TestI1I6Timeline
i1  ./backend/blkif      TestI1WriteWaitsForCommit
i1  hvpatch/tests        test-tap
i2  ./backend/ring       TestI2SlotsAheadOfRspProdHoldRequests
i2  ./backend/journal    TestI2KilledAtAnyStore
i2  ./backend/blkif      TestResponsesKeepTheOrderOfRequests
i2  ./backend/blkif      TestI2RestartedProcessTrustsItsJournal
i3  ./backend/gate       TestI3FrozenRingDoesNotChange
i3  ./backend/blkif      TestI3FrozenDeviceLeavesGuestMemoryAlone
i3  hvpatch/tests        test-tap
i4  ./backend/blkif      TestI4NoUnseenWrite
i4  ./toolstack/primary  TestI4NoUnseenWrite
i4_known ./toolstack/primary TestI4RememberedPagesHideNothing
i4_known ./toolstack/primary TestI4PageThatWasXensMeanwhile
i4_known ./toolstack/primary TestI4WrittenBack
i4  hvpatch/tests        test-dirty
i5  ./backend/gate       TestI5FirstPushAfterPauseNotifies
i5  ./backend/blkif      TestI5PushAfterSyncIsAnEvent
i6  ./backend/gate       TestI1I6Timeline
i6  ./backend/gate       TestI6AttachDoesAgainWhatWasNotAnswered
i6  ./backend/blkif      TestI6OtherHostDoesAgainWhatWasNotAnswered
i7  ./toolstack/stream   TestI7OnlyWholeEpochs
i7  ./toolstack/secondary TestI7BadStateIsNotAcknowledged
i7  ./toolstack/replica  TestI7Stage
i8  ./toolstack/lease    TestI8Proof
i8  ./toolstack/replica  TestModel
i8  ./toolstack/replica  TestTranscripts/operators_word
i9  ./toolstack/lease    TestI9DaemonRestartIsNotADeath
i10 hvpatch/tests        test-clocks
i10 ./toolstack/secondary TestI10TSCGoesOn
i10 ./toolstack/secondary TestI10NativeTSCNeedsItsRate
i11 ./toolstack/shell    TestI11ActivatedGuestIsXLs
i11 ./toolstack/xsreplica TestI11NodesAsXLExpects
i11 ./toolstack/xsreplica TestI11WatchesFireAgain
i12 ./toolstack/lease    TestI12Choice
i12 ./toolstack/replica  TestModel
i13 ./toolstack/lease    TestI13Proof
i13 ./toolstack/replica  TestModel
i14 ./toolstack/daemon     TestI14SecondStart
i15 ./backend/store      TestI15HostLocalStorageIsRefused
i15 ./backend/blkif      TestI15WriteIsAnsweredWhenStored
'
out=$(mktemp) || exit 2
trap 'rm -f "$out"' EXIT
bad=0
while read -r inv pkg test; do
    [ -n "$inv" ] || continue
    case " ${*:-$inv} " in *" $inv "* | *" ${inv%%_*} "*) ;; *) continue ;; esac
    if [ "$pkg" = hvpatch/tests ]; then
        if xen=$("${GO:-go}" run ./tools/lab cache xen-source 2>"$out") &&
           make -s -C "$pkg" XEN="$xen" "broken-${test#test-}" >"$out" 2>&1; then
            sed "s|^|$inv: broken, |" "$out"
        else
            echo "$inv: $pkg $test does not notice everything, or did not run:"; cat "$out"; bad=1
        fi
        continue
    fi
    models=
    if grep -qs pgregory.net/rapid "$pkg"/*_test.go; then
        models='-rapid.checks=2000 -rapid.nofailfile -rapid.shrinktime=200ms'
    fi
    # shellcheck disable=SC2086 # several words
    if "${GO:-go}" test -count=1 -tags "broken_$inv" -run "^$test\$" "$pkg" $models >"$out" 2>&1; then
        echo "$inv: broken, and $pkg $test still passes"; bad=1
    elif grep -q -- "--- FAIL: $test" "$out"; then
        echo "$inv: broken, $pkg $test noticed"
    else # also if it does not build
        echo "$inv: $pkg $test did not run:"; cat "$out"; bad=1
    fi
done <<EOF
$list
EOF
exit $bad
