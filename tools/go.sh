#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Prints the path of a go command that can build this module, and gets one if
# there is none: Debian's package, and through that, from the module proxy, the
# version that go.mod asks for. Debian 12's go is too old to do the second step
# by itself (GOTOOLCHAIN came with 1.21), so it is asked for the module by name.
set -eu
cd "$(dirname "$0")/.."
want=$(sed -n 's/^go //p' go.mod)

for go in go /usr/local/go/bin/go /usr/lib/go/bin/go; do
    command -v "$go" >/dev/null 2>&1 && break
    go=
done
if [ -z "${go:-}" ]; then
    apt-get update -q >&2
    apt-get install -y --no-install-recommends golang-go >&2
    go=go
fi
go=$(command -v "$go")
case $("$go" version) in
*" go1."[0-9]" "* | *" go1."[0-9].* | *" go1.1"* | *" go1.20"*)
    dir=$(cd / && GOFLAGS=-mod=mod "$go" mod download -json \
        "golang.org/toolchain@v0.0.1-go$want.linux-amd64" |
        sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
    chmod +x "$dir"/bin/* "$dir"/pkg/tool/*/*
    go=$dir/bin/go
    ;;
esac
echo "$go"
