#!/usr/bin/env bash
# Build csi-sanity and fetch the official csi.proto, both from the Go module proxy, into .cache/go.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/find-go.sh

sanity_version=v5.4.0
spec_version=v1.12.0
out=$PWD/.cache/go
sanity=$out/csi-sanity-$sanity_version
proto=$out/csi-$spec_version.proto
[ -x "$sanity" ] && [ -s "$proto" ] && exit 0

mkdir -p "$out"
export HOME=${HOME:-/root} GOBIN=$out GOFLAGS=-mod=mod CGO_ENABLED=0
go=$(find_go 24)

if [ ! -x "$sanity" ]; then
    echo "setup: building csi-sanity $sanity_version" >&2
    "$go" install "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity@$sanity_version"
    mv "$out/csi-sanity" "$sanity"
fi

directory=$(cd "$out" && "$go" mod download -json "github.com/container-storage-interface/spec@$spec_version" |
    sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
install -m 644 "$directory/csi.proto" "$proto.part"
mv "$proto.part" "$proto"
