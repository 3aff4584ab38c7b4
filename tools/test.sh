#!/usr/bin/env bash
# What `make test` runs once the machine is set up: lint first, then every test, cheap ones first. Tests in a cluster
# mostly wait, so three clusters share them, and the tests with PyTorch run beside them: its installation is begun first
# of all, and nothing waits for it but they.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p .cache/torch
tools/torch.sh >/dev/null 2>.cache/torch/begun.log & # what goes wrong is told by the lane, which calls it again
tools/lint.sh
result=0
.venv/bin/python -m pytest tests/unit tests/driver tests/mount tests/faults "$@" || result=$?
tools/image.sh
nice tools/test-torch.sh tests/torch "$@" >.cache/torch/lane.log 2>&1 &
torch=$!
trap 'kill "$torch" 2>/dev/null || true' EXIT # Ctrl-C does not reach what runs in the background
.venv/bin/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder tests/cluster "$@" || result=$?
wait "$torch" || result=$?
cat .cache/torch/lane.log
exit $result
