#!/usr/bin/env bash
# Build what the cluster of the tests runs into .cache/cluster/MINOR/bin: control plane, kubelet, kubectl, provisioner,
# helm, cert-manager and the stand-ins, from the modules of tests/cluster/tools, static and stripped; put cert-manager's
# CustomResourceDefinitions beside it. Does nothing while those are unchanged since the last build; a first one takes
# about ten minutes on two cores.
#   tools/cluster-binaries.sh            Kubernetes 1.36
#   tools/cluster-binaries.sh 1.33       the oldest supported: tests/cluster/tools/1.33/go.mod pins its five programs
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/find-go.sh

newest=1.36
minor=${1:-${K8S_VERSION:-$newest}}
case $minor in
    "$newest") module=tests/cluster/tools ;;
    1.33) module=tests/cluster/tools/1.33 ;;
    *) echo "setup: Kubernetes $minor: the tests know $newest and 1.33" >&2; exit 1 ;;
esac

kubernetes=(kube-apiserver kube-controller-manager kube-scheduler kubelet kubectl)
kubernetes=("${kubernetes[@]/#/k8s.io/kubernetes/cmd/}")
others=(github.com/kubernetes-csi/external-provisioner/v6/cmd/csi-provisioner helm.sh/helm/v4/cmd/helm
    ./cert-manager ./registrar-stand-in ./livenessprobe-stand-in)
out=$PWD/.cache/cluster/$minor/bin
stamp=$(cat "$0" $module/go.{mod,sum} tests/cluster/tools/go.{mod,sum} tests/cluster/tools/*/*.go \
    tests/cluster/tools/pause.c | sha256sum)
[ "$(cat "$out/.stamp" 2>/dev/null)" = "$stamp" ] && exit 0

version=$(sed -n 's/.*k8s.io\/kubernetes \(v[0-9.]*\).*/\1/p' $module/go.mod)
echo "setup: building Kubernetes $version, csi-provisioner and helm from Go modules (the first time takes ten minutes or more)" >&2
export HOME=${HOME:-/root} CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOTOOLCHAIN=local
go=$(find_go 26 26) # by Go 1.27 kube-apiserver builds, but its /openapi/v2 is corrupt
mkdir -p "$out"
rm -f "$out/.stamp"

build() { # in module $1: the packages that follow
    local flags=(-s -w -X "k8s.io/component-base/version.gitVersion=$version"
        -X "k8s.io/component-base/version.gitMajor=1" -X "k8s.io/component-base/version.gitMinor=${minor#1.}")
    (cd "$1" && shift && nice -n 5 "$go" build -trimpath -ldflags "${flags[*]}" -o "$out/" "$@")
}
if [ "$module" = tests/cluster/tools ]; then # one command, so that what they share is compiled and linked side by side
    build "$module" "${kubernetes[@]}" "${others[@]}"
else
    build "$module" "${kubernetes[@]}"
    build tests/cluster/tools "${others[@]}"
fi
definitions=${out%/bin}/cert-manager
mkdir -p "$definitions"
install -m 644 -t "$definitions" \
    "$(cd tests/cluster/tools && "$go" list -m -f '{{.Dir}}' github.com/cert-manager/cert-manager)"/deploy/crds/cert-manager.io_*.yaml
gcc -static -Os -s -o "$out/pause" tests/cluster/tools/pause.c
printf '%s' "$stamp" >"$out/.stamp"
