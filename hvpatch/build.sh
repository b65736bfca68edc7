#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Builds Xen with the series, with and without CONFIG_KEMARI, debug and
# release, and shows that without it the machine code is what it was before.
#
#   hvpatch/build.sh               all of it
#   XEN_ORIG=DIR hvpatch/build.sh  with the pristine tree in DIR, instead of
#                                  the tarball which the lab downloads
#
# Scratch space is $KEMARI_CACHE/hvpatch. Later runs compile only what has
# changed.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
cache=${KEMARI_CACHE:-$root/.cache}
work=$cache/hvpatch
jobs=${JOBS:-$(nproc)}
# The patch before which the hypervisor does not know CONFIG_KEMARI.
first='*-xen-add-CONFIG_KEMARI-*.patch'

say() { echo "hvpatch: $*" >&2; }
die() { say "$*"; exit 1; }

for tool in git make gcc ld objdump awk flex bison python3 flock; do
    command -v $tool >/dev/null || die "$tool is missing; on Debian: apt-get install git build-essential flex bison python3"
done

# The pristine source: the tarball that the lab has downloaded and checked.
tarball() {
    sum=$(sed -n 's/.*xenSHA256 *= "\([0-9a-f]*\)".*/\1/p' "$root/tools/lab/image/xen.go")
    [ -n "$sum" ] || die "tools/lab/image/xen.go does not say which tarball"
    for again in no yes; do
        for f in "$cache"/xen-*.orig.tar.xz; do
            [ -f "$f" ] && echo "$sum  $f" | sha256sum -c --status && { echo "$f"; return; }
        done
        [ $again = yes ] && break
        (cd "$root" && $("$root/tools/go.sh") run ./tools/lab cache xen-source >&2) ||
            die "cannot get Xen's source; XEN_ORIG=DIR names a pristine tree"
    done
    die "no tarball with SHA-256 $sum in $cache"
}

git_() { git -c user.name=hvpatch -c user.email=hvpatch@localhost -c gc.auto=0 \
             -c commit.gpgsign=false -c core.autocrlf=false "$@"; }

# One repository with the pristine tree, and a work tree each with all patches
# and with those before CONFIG_KEMARI. A checkout touches what has changed only.
sources() {
    if [ -n "${XEN_ORIG:-}" ]; then
        id=$( (cd "$XEN_ORIG" && find . -type f ! -path './.git/*' -exec cksum {} + | sort -k3) | cksum | tr ' ' -)
    else
        tar=$(tarball) && id=$(basename "$tar")
    fi
    if [ "$(cat "$work/pristine" 2>/dev/null)" != "$id" ]; then
        say "unpacking the pristine tree"
        rm -rf "$work" && mkdir -p "$work/apply"
        if [ -n "${XEN_ORIG:-}" ]; then
            (cd "$XEN_ORIG" && tar -cf - --exclude=./.git .) | tar -xf - -C "$work/apply"
        else
            tar -xf "$tar" -C "$work/apply" --strip-components=1
        fi
        (
            cd "$work/apply"
            rm -f .git
            git_ init -q .
            git_ add -A -f
            git_ commit -q -m pristine
            git_ tag pristine
        )
        echo "$id" > "$work/pristine"
    fi

    cd "$work/apply"
    git_ am --abort 2>/dev/null || true
    git_ checkout -q -f --detach pristine
    before=
    while read -r p; do
        case $p in
        $first) before=$(git_ rev-parse HEAD) ;;
        esac
        git_ am -q --whitespace=error-all --committer-date-is-author-date "$here/$p" ||
            die "$p does not apply"
    done < "$here/series"
    [ -n "$before" ] || die "no patch in the series is called $first"
    after=$(git_ rev-parse HEAD)
    for t in before after; do
        eval c=\$$t
        [ -d "$work/$t" ] || git_ worktree add -q --detach "$work/$t" pristine
        (cd "$work/$t" && git_ checkout -q -f --detach "$c")
    done
    say "$(wc -l < "$here/series") patches apply"
}

# build NAME TREE DEBUG KEMARI
build() {
    out=$work/$1
    mkdir -p "$out"
    {
        echo CONFIG_EXPERT=y
        echo '# CONFIG_DEBUG_INFO is not set'
        [ "$3" = y ] && echo CONFIG_DEBUG=y || echo '# CONFIG_DEBUG is not set'
        [ "$4" = y ] && echo CONFIG_KEMARI=y || echo '# CONFIG_KEMARI is not set'
    } > "$out/wanted"
    t0=$(date +%s)
    # The same version strings everywhere; they are part of the code compared.
    set -- "$1" -s -C "$work/$2/xen" O="$out" XEN_BUILD_DATE=- XEN_BUILD_TIME=- \
        XEN_BUILD_HOST=- XEN_WHOAMI=- XEN_DOMAIN=-
    name=$1; shift
    if ! cmp -s "$out/wanted" "$out/configured"; then
        cp "$out/wanted" "$out/.config"
        make "$@" olddefconfig > "$out.log" 2>&1 || { tail -20 "$out.log" >&2; die "$name: olddefconfig failed, see $out.log"; }
        cp "$out/wanted" "$out/configured"
    fi
    make "$@" olddefconfig >> "$out.log" 2>&1
    make "$@" -j"$jobs" > "$out.log" 2>&1 || { tail -20 "$out.log" >&2; die "$name: build failed, see $out.log"; }
    ! grep -q 'warning:' "$out.log" || { grep 'warning:' "$out.log" >&2; die "$name: warnings"; }
    say "$name: $(size "$out/xen-syms" | awk 'NR == 2 { print $1 }') bytes of text, $(($(date +%s) - t0)) s"
}

# listing DIR: one line per function: OBJECT FUNCTION, tab, its instructions
# with addresses relative to the function's start. Where data lies within its
# section is of no interest.
listing() {
    (
        cd "$1"
        find . -name '*.o' ! -name 'built_in*' ! -name 'prelink*' ! -path './tools/*' | sort |
        while read -r o; do
            echo "OBJECT ${o#./}"
            objdump -dr --no-show-raw-insn "$o" 2>/dev/null || true
        done
    ) | awk -f "$here/listing.awk" > "$work/$(basename "$1").list"
}

mkdir -p "$cache"
exec 9> "$cache/hvpatch.lock"
flock 9
sources
build release-before before n n
build release-off    after  n n
build release-on     after  n y
build debug-off      after  y n
build debug-on       after  y y
for c in release debug; do
    grep -qx 'CONFIG_KEMARI=y' "$work/$c-on/.config" || die "$c-on: CONFIG_KEMARI is not on"
    ! grep -q 'CONFIG_KEMARI=y' "$work/$c-off/.config" || die "$c-off: CONFIG_KEMARI is on"
done

# The functions that the series hooks into. They must be among those compared,
# and equal, but for line numbers.
hooked='
common/event_channel.o evtchn_send
common/event_channel.o evtchn_free
common/event_channel.o send_guest_vcpu_virq
common/event_channel.o send_guest_global_virq
common/event_channel.o send_guest_pirq
common/event_channel.o notify_via_xen_event_channel
common/memory.o do_memory_op
common/domctl.o do_domctl
arch/x86/domctl.o arch_do_domctl
arch/x86/hvm/hvm.o hvm_hap_nested_page_fault
arch/x86/hvm/save.o hvm_load
arch/x86/mm/paging.o paging_mark_pfn_dirty
arch/x86/mm/p2m.o p2m_remove_entry
arch/x86/mm/p2m.o p2m_add_page'

say "comparing the code without CONFIG_KEMARI with that before there was one"
listing "$work/release-before"
listing "$work/release-off"
awk -f "$here/compare.awk" "$work/release-before.list" "$work/release-off.list" | sort > "$work/compared"

echo "$hooked" | while read -r f; do
    [ -z "$f" ] || grep -qxE "(same|line) $f" "$work/compared" ||
        die "$(grep -F " $f" "$work/compared" || echo "not found: $f"): a hooked function, and not the same"
done

# What differs otherwise has a reason, in the file "differs", or is an error.
grep -vE '^(same|line) ' "$work/compared" | while read -r how obj fn; do
    why=$(awk -v o="$obj" -v f="$fn" '$1 == o && $2 == f { $1 = $2 = ""; sub(/^ */, ""); print }' "$here/differs")
    [ -n "$why" ] || die "$how: $obj $fn, for no known reason; see $work/release-before.list and release-off.list"
    printf '  %-9s %s %s: %s\n' "$how" "$obj" "$fn" "$why" >&2
done
say "$(grep -c '^same ' "$work/compared") functions are the same, $(grep -c '^line ' "$work/compared") but for a line number, $(grep -vcE '^(same|line) ' "$work/compared") are not, as explained above; all hooked ones are"
