#!/usr/bin/env bash
# What `make test` runs once the machine is set up: lint first, then every test, cheap ones first. Tests in a cluster
# mostly wait, so three clusters share them.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/lint.sh
result=0
.venv/bin/python -m pytest tests/unit tests/driver tests/mount tests/faults "$@" || result=$?
tools/image.sh
.venv/bin/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder tests/cluster "$@" || result=$?
exit $result
