#!/usr/bin/env bash
# What `make test` runs once the machine is set up: lint first, then every test, cheap ones first.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/lint.sh
tools/image.sh
exec .venv/bin/python -m pytest tests/unit tests/driver tests/mount tests/faults tests/cluster "$@"
