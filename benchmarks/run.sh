#!/usr/bin/env bash
# Install the peers from Debian and compare; writes benchmarks/RESULTS.md. Needs root and about ten minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
missing=()
for package in nginx-light s3fs rclone; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
exec .venv/bin/python -m benchmarks.mounts "$@"
