#!/bin/sh
# Leave out of the image what packages carry along and no process of ours ever loads: the generated classes of the
# kubernetes client (csi/cluster speaks plain JSON) and its asyncio twin, test suites, the sources and the debugging
# symbols of compiled modules, the languages that pygments can colour.
#   prune.sh ENVIRONMENT
set -eu
packages=$(echo "$1"/lib/python3.*/site-packages)
[ -d "$packages" ] || { echo "prune: no site-packages in $1" >&2; exit 1; }
cd "$packages"
rm -r kubernetes/aio kubernetes/client/api/*_api.py Crypto/SelfTest trio/_tests
find kubernetes/client/models pygments/lexers -name '[!_]*.py' -delete
find . -type f \( -name '*.c' -o -name '*.h' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.pxi' \) -delete
# *.libs holds libraries that auditwheel rewrote; strip and such files do not get on
find . -type f -name '*.so' ! -path '*.libs/*' -exec strip --strip-unneeded {} +
