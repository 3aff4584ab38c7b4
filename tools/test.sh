#!/usr/bin/env bash
# What `make test` runs once the machine is set up: lint first, then every test, cheap ones first. The tests with PyTorch,
# and its installation, run beside those without a cluster, which use one processor. Tests in a cluster mostly wait, so
# three clusters share them.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/lint.sh
result=0
mkdir -p .cache/torch
nice tools/test-torch.sh tests/torch "$@" >.cache/torch/lane.log 2>&1 &
torch=$!
trap 'kill "$torch" 2>/dev/null || true' EXIT # Ctrl-C does not reach what runs in the background
.venv/bin/python -m pytest tests/unit tests/driver tests/mount tests/faults "$@" || result=$?
wait "$torch" || result=$?
trap - EXIT
cat .cache/torch/lane.log
tools/image.sh
.venv/bin/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder tests/cluster "$@" || result=$?
exit $result
