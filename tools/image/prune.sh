#!/bin/sh
# Leave out of the image what packages carry along and no process of ours ever loads: the kubernetes client's asyncio
# twin, test suites, and the sources of compiled modules.
#   prune.sh ENVIRONMENT
set -eu
packages=$(echo "$1"/lib/python3.*/site-packages)
[ -d "$packages" ] || { echo "prune: no site-packages in $1" >&2; exit 1; }
rm -rf "$packages/kubernetes/aio" "$packages/Crypto/SelfTest" "$packages/trio/_tests"
find "$packages" -type f \( -name '*.c' -o -name '*.h' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.pxi' \) -delete
