#!/usr/bin/env bash
# Write the generated documents again: options from the option table, the chart's README and kubectl form from the chart.
set -euo pipefail
cd "$(dirname "$0")/.."
written=$(mktemp)
trap 'rm -f "$written"' EXIT
write() { # the output of a command, once it has succeeded
    local target=$1
    shift
    "$@" >"$written"
    cat "$written" >"$target"
}
write docs/options.md .venv/bin/python -m csi.volume.table.document
write charts/ossfuse-csi/README.md .venv/bin/python tools/chart_readme.py
write deploy/kubernetes.yaml .venv/bin/python tools/render_deploy.py --helm .cache/cluster/1.36/bin/helm
