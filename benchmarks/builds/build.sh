#!/usr/bin/env bash
# Bring the clients of the benchmarks: build.sh [debian|limits|goofys|mountpoint|libraries|torch]..., all of them without
# arguments. What is built lies in .cache/bench by version, and is built once. A client that cannot be had is named and
# left out; the others go on.
set -uo pipefail
cd "$(dirname "$0")/../.."
. tools/find-go.sh

here=$PWD/benchmarks/builds
cache=$PWD/.cache/bench
bin=$cache/bin
mkdir -p "$bin"

say() { printf 'bench: %s\n' "$*" >&2; }
link() { ln -sfn "$2" "$bin/$1"; } # link NAME FILE: the harness calls NAME, its version stands in FILE

debian() {
    local missing=() package
    for package in nginx-light libnginx-mod-http-lua s3fs rclone curl gcc libfuse3-dev pkg-config; do
        dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
    command -v nginx >/dev/null && missing=("${missing[@]/nginx-light/}") # another build of nginx will do
    missing=(${missing[@]})
    [ ${#missing[@]} -eq 0 ] && return
    say "installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

limits() { # the C FUSE server, named by its source
    local version
    version=$(sha256sum benchmarks/limits/memory_fs.c | cut -c1-12)
    [ -x "$bin/memory_fs-$version" ] || gcc -O2 -Wall -Wextra -o "$bin/memory_fs-$version" benchmarks/limits/memory_fs.c \
        $(pkg-config --cflags --libs fuse3) || return
    link memory_fs "memory_fs-$version"
}

goofys() {
    local version=0.24.0 go
    if [ ! -x "$bin/goofys-$version" ]; then
        go=$(find_go 24) || return
        say "building goofys $version"
        (cd "$here/goofys" && GOFLAGS=-mod=readonly CGO_ENABLED=0 nice -n 19 "$go" build -p 1 \
            -o "$bin/goofys-$version" github.com/kahing/goofys) || return
    fi
    link goofys "goofys-$version"
}

mountpoint() { # needs cargo, cmake, a C++ compiler, libclang and libfuse's headers
    local version program package missing=()
    version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$here/mountpoint/Cargo.toml" | head -n 1)
    program=$bin/mountpoint-$version-$(cat "$here/mountpoint/src/main.rs" "$here/mountpoint/Cargo.lock" | sha256sum | cut -c1-8)
    if [ ! -x "$program" ]; then
        command -v cargo >/dev/null || { say "mountpoint needs cargo; it is not here"; return 1; }
        for package in cmake g++ libclang-dev clang libfuse-dev pkg-config; do
            dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
        done
        [ ${#missing[@]} -eq 0 ] ||
            DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
        say "building mountpoint-s3-fs $version (about ten minutes)"
        (cd "$here/mountpoint" && CARGO_TARGET_DIR=$cache/build/mountpoint nice -n 19 cargo build -q -j1 --release --locked) || return
        install -m 755 "$cache/build/mountpoint/release/mountpoint-bench" "$program"
    fi
    link mountpoint "${program##*/}"
}

environment() { [ -x "$cache/venv/bin/python" ] || .venv/bin/python -m venv "$cache/venv"; }

libraries() {
    environment && "$cache/venv/bin/python" -m pip install -q --disable-pip-version-check \
        pyjindosdk==6.10.4 obstore==0.12.1 opendal==0.47.12
}

torch() { tools/torch.sh >/dev/null; }

[ $# -gt 0 ] || set -- debian limits goofys mountpoint libraries torch
for client in "$@"; do
    "$client" || say "$client could not be had; the harness names it and goes on"
done
