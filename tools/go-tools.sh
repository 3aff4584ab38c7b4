#!/usr/bin/env bash
# Build csi-sanity, fetch the official csi.proto and cert-manager's CustomResourceDefinitions, all from the Go module
# proxy, into .cache/go.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/find-go.sh

sanity_version=v5.4.0
spec_version=v1.12.0
cert_manager_version=v1.18.2
out=$PWD/.cache/go
sanity=$out/csi-sanity-$sanity_version
proto=$out/csi-$spec_version.proto
definitions=$out/cert-manager
[ -x "$sanity" ] && [ -s "$proto" ] && [ "$(cat "$definitions/.version" 2>/dev/null)" = "$cert_manager_version" ] && exit 0

mkdir -p "$out"
export HOME=${HOME:-/root} GOBIN=$out GOFLAGS=-mod=mod CGO_ENABLED=0
go=$(find_go 24)

if [ ! -x "$sanity" ]; then
    echo "setup: building csi-sanity $sanity_version" >&2
    "$go" install "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity@$sanity_version"
    mv "$out/csi-sanity" "$sanity"
fi
source_of() { # where the module $1 lies, fetched if need be
    (cd "$out" && "$go" mod download -json "$1" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
}

directory=$(source_of "github.com/container-storage-interface/spec@$spec_version")
install -m 644 "$directory/csi.proto" "$proto.part"
mv "$proto.part" "$proto"

directory=$(source_of "github.com/cert-manager/cert-manager@$cert_manager_version")
mkdir -p "$definitions"
install -m 644 -t "$definitions" "$directory"/deploy/crds/crd-{certificates,issuers}.yaml
echo "$cert_manager_version" >"$definitions/.version"
