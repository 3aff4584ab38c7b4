#!/usr/bin/env bash
# Make this machine able to build, test and demonstrate ossfuse-csi: Debian packages, a virtual environment in
# .venv, the package itself (editable). Safe to run again and again: it does only what is missing.
#   tools/setup.sh           what `make demo` and `ossfuse` need
#   tools/setup.sh test      also what `make test` needs (Go for csi-sanity, clients used as oracles)
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { printf 'setup: cannot continue: %s\n' "$*" >&2; exit 1; }

flavour=${1:-run}

find_python() {
    local candidate
    for candidate in python3 python3.13 python3.12 python3.11; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s' "$candidate"
            return
        fi
    done
}

missing_packages() {
    local wanted=(gcc pkg-config libfuse3-dev libcurl4 ca-certificates util-linux mount)
    [ "$1" = python3 ] && [ "$(command -v python3)" = /usr/bin/python3 ] && wanted+=(python3-venv python3-dev)
    dpkg-query -W -f '${Package} ${db:Status-Status}\n' "${wanted[@]}" 2>/dev/null |
        awk '$2 == "installed" { print $1 }' | sort -u >"$have"
    printf '%s\n' "${wanted[@]}" | sort -u | comm -23 - "$have"
}

pip_install() { # silent unless it fails
    .venv/bin/python -m pip install -q --disable-pip-version-check "$@" >"$pip_log" 2>&1 || { cat "$pip_log" >&2; return 1; }
}

have=$(mktemp)
pip_log=$(mktemp)
trap 'rm -f "$have" "$pip_log"' EXIT

[ "$(uname -s)" = Linux ] || fail "this is $(uname -s); mounting needs Linux"
[ -e /dev/fuse ] || fail "/dev/fuse is missing; load the fuse module (modprobe fuse) or run on a machine that has it"
[ "$(id -u)" = 0 ] || fail "not root; mounts and cgroups need root (sudo make ...)"

python=$(find_python)
[ -n "$python" ] || fail "no Python >= 3.11 found; install one (Debian 12: apt-get install python3)"

if command -v dpkg-query >/dev/null 2>&1; then
    packages=$(missing_packages "$python")
    if [ -n "$packages" ]; then
        say "installing Debian packages: $(echo $packages)"
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq >&2 || fail "apt-get update failed; is the network to Debian's packages there?"
        # shellcheck disable=SC2086 - a list of words
        apt-get install -y -qq --no-install-recommends $packages >/dev/null ||
            fail "apt-get install failed for: $(echo $packages)"
    fi
elif ! pkg-config --exists fuse3 2>/dev/null; then
    fail "unknown distribution ($(. /etc/os-release 2>/dev/null && echo "${PRETTY_NAME:-no os-release}")): install gcc, pkg-config and libfuse3's headers yourself, then run this again"
fi

stamp=.venv/.ossfuse-$flavour
wanted=$(cat pyproject.toml setup.py proto/csi/v1/csi.proto tools/setup.sh | sha256sum)
if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ] || ! .venv/bin/python -c 'import csi.v1.csi_pb2' 2>/dev/null; then
    [ -x .venv/bin/python ] || "$python" -m venv .venv || fail "$python -m venv .venv failed"
    extra=""
    [ "$flavour" = test ] && extra="[test]"
    say "installing Python packages into .venv (the first time takes a minute or two)"
    pip_install --upgrade 'pip>=24' || fail "pip could not be upgraded; is the network to PyPI there?"
    pip_install -e ".$extra" || fail "pip install -e .$extra failed; its message is above"
    printf '%s' "$wanted" >"$stamp"
fi

if [ "$flavour" = test ]; then
    bash tools/go-tools.sh || fail "the Go tools for the tests could not be built; the message is above"
fi
