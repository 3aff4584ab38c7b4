#!/usr/bin/env bash
# The end-to-end tests in a kind cluster of their own, for people with Docker, kind and a registry: the images of the
# provisioner and the others are pulled there, the driver's own is built here and loaded. Removes the cluster afterwards.
# Arguments are for pytest. KIND_IMAGE=kindest/node:v1.33.7 chooses the Kubernetes version.
set -euo pipefail
cd "$(dirname "$0")/.."
for program in docker kind kubectl; do
    command -v "$program" >/dev/null || { echo "e2e-kind: $program is not installed" >&2; exit 1; }
done
name=ossfuse-csi-e2e
tools/image.sh
kubeconfig=$(mktemp)
trap 'kind delete cluster --name "$name" --kubeconfig "$kubeconfig" >/dev/null 2>&1; rm -f "$kubeconfig"' EXIT
kind create cluster --name "$name" --kubeconfig "$kubeconfig" --wait 180s ${KIND_IMAGE:+--image "$KIND_IMAGE"}
kind load image-archive --name "$name" .cache/image/ossfuse-csi.tar
.venv/bin/python -m tests.cluster.harness images >/dev/null
kind load image-archive --name "$name" .cache/cluster/1.36/images/busybox.tar
KUBECONFIG_E2E=$kubeconfig .venv/bin/python -m pytest tests/cluster "$@"
