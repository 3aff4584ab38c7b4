#!/usr/bin/env bash
# A shell that speaks to the cluster of `make cluster-up`: KUBECONFIG is set, kubectl and helm are in PATH.
#   tools/cluster-shell.sh                        an interactive shell
#   tools/cluster-shell.sh kubectl get pods -A    one command
#   CLUSTER=NAME tools/cluster-shell.sh           of `make cluster-up CLUSTER=NAME`
#   tools/cluster-shell.sh load IMAGE.tar         put an image (of `docker save`) into the cluster
set -euo pipefail
directory=$(cd "$(dirname "$0")/.." && pwd)
state=$directory/.cache/cluster/state/${CLUSTER:-developer}
[ -e "$state/process" ] || { echo "no cluster is up; \`make cluster-up\` starts one" >&2; exit 1; }
if [ "${1:-}" = load ]; then
    image=$(realpath -- "${2:?which archive?}")
    cd "$directory"
    exec .venv/bin/python -m tests.cluster.harness load "$image"
fi
export KUBECONFIG=$state/identities/admin.kubeconfig PATH=$state/bin:$PATH
[ $# -gt 0 ] || set -- "${SHELL:-/bin/sh}"
exec "$@"
