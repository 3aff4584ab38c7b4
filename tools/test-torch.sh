#!/usr/bin/env bash
# Run tests/torch, or a part of it, in the Python that has torch.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(tools/torch.sh)
[ $# -gt 0 ] || set -- tests/torch
exec "$python" -m pytest "$@"
