#!/usr/bin/env bash
# Build the container image from the Dockerfile, also where no registry can be reached: the base image is then made by
# debootstrap and tagged with the name that FROM asks for. Safe to run again and again, and by several at once: what is
# there for the same inputs is kept. Prints the archive's path and the image's size.
#   tools/image.sh          .cache/image/ossfuse-csi.tar, to be imported as docker.io/ossfuse-csi/ossfuse-csi:VERSION
#   tools/image.sh lock     resolve pyproject.toml again and write tools/image/{requirements,build}.txt
# ARCH=arm64 builds for another architecture, into .cache/image-arm64; it takes qemu-user-static, registered in binfmt_misc.
# BASE_IMAGE=NAME builds on a base that the machine already has or can pull, instead of debootstrap's.
set -Eeuo pipefail
cd "$(dirname "$0")/.."

say() { printf 'image: %s\n' "$*" >&2; }
fail() { printf 'image: cannot continue: %s\n' "$*" >&2; exit 1; }
trap 'fail "tools/image.sh line $LINENO: $BASH_COMMAND"' ERR
reason() { # the first line of the log that looks like an error, but buildah's repetition of the whole step
    { grep -iE '^[^ ]* ?.*\b(E|error|fatal|failed)\b[: ]' "$log" | grep -v 'Error: building at STEP' || tail -n 1 "$log"; } | head -n 1
}
quiet() { # run, its output kept in a file of which the useful line is shown where it fails
    local what=$1
    shift
    "$@" >"$log" 2>&1 && return
    cp "$log" "$cache/failed.log"
    fail "$what: $(reason) (all of it: ${cache#"$PWD/"}/failed.log)"
}

action=${1:-build}
case $action in build | lock) ;; *) fail "what is '$action'? nothing, or lock" ;; esac
arch=${ARCH:-$(dpkg --print-architecture)}
cache=$PWD/.cache/image${ARCH:+-$ARCH}
archive=$cache/ossfuse-csi.tar
suite=bookworm
base_image=${BASE_IMAGE:-docker.io/library/debian:12-slim}
authority=/etc/ssl/certs/ca-certificates.crt
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
name=docker.io/ossfuse-csi/ossfuse-csi:$version
export DEBIAN_FRONTEND=noninteractive

install_tools() {
    local missing=() tool
    for tool in buildah debootstrap; do type -P "$tool" >/dev/null || missing+=("$tool"); done # not the function below
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || fail "${missing[*]} missing; install them with this distribution's package manager"
    say "installing Debian packages: ${missing[*]}"
    quiet "apt-get update" apt-get update -qq
    quiet "apt-get install ${missing[*]}" apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=300 "${missing[@]}"
}

buildah() { command buildah --root "$cache/storage" --runroot "$cache/run" --storage-driver "$driver" "$@"; }

choose_storage() { # overlay where the kernel lets it stack here; vfs copies everything, but works anywhere
    local probe=$cache/probe
    driver=vfs
    mkdir -p "$probe"/{lower,upper,work,merged}
    if mount -t overlay overlay -o "lowerdir=$probe/lower,upperdir=$probe/upper,workdir=$probe/work" "$probe/merged" 2>/dev/null; then
        umount "$probe/merged"
        driver=overlay
    fi
    rm -rf "$probe"
}

# What an image is made of, copied: the sources may change while it is built.
copy_inputs() {
    rm -rf "$cache/context"
    mkdir -p "$cache/context/tools"
    cp -a Dockerfile .dockerignore pyproject.toml setup.py README.md LICENSE proto csi "$cache/context/"
    cp -a tools/image "$cache/context/tools/"
    rm -rf "$cache/context/csi/v1"
    find "$cache/context" -depth -name __pycache__ -exec rm -rf {} +
}

hash_inputs() {
    (cd "$cache/context" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
        echo "$base_image $version $suite") | sha256sum | cut -d ' ' -f 1
}

# As debian:12-slim is made: the minimal system without manuals, translations and documents other than licences.
make_base() {
    [ -z "${BASE_IMAGE:-}" ] || return 0 # the builder pulls it
    local root=$cache/base recipe
    recipe=$(declare -f make_base | sha256sum)
    [ "$(cat "$cache/base.recipe" 2>/dev/null)" != "$recipe" ] || ! buildah inspect --type image "$base_image" >/dev/null 2>&1 || return 0
    say "making the base image $base_image with debootstrap (the first time takes a minute or two)"
    rm -rf "$root"
    quiet "debootstrap $suite" debootstrap --arch="$arch" --variant=minbase "$suite" "$root" http://deb.debian.org/debian
    rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/* "$root"/dev/* \
        "$root"/usr/share/{man,info,locale,groff,lintian,linda}/* "$root"/etc/{resolv.conf,hostname}
    find "$root/usr/share/doc" -depth -mindepth 1 -type f ! -name copyright -delete
    find "$root/usr/share/doc" -depth -mindepth 1 -type d -empty -delete
    printf 'path-exclude /usr/share/%s/*\n' man info locale groff lintian linda >"$root/etc/dpkg/dpkg.cfg.d/docker"
    printf 'path-exclude /usr/share/doc/*\npath-include /usr/share/doc/*/copyright\n' >>"$root/etc/dpkg/dpkg.cfg.d/docker"
    local container
    container=$(buildah from --pull-never scratch)
    quiet "the base image" buildah add "$container" "$root" /
    buildah config --arch "$arch" --cmd bash "$container"
    quiet "the base image" buildah commit --rm "$container" "$base_image"
    echo "$recipe" >"$cache/base.recipe"
    rm -rf "$root"
}

# The slow stages get names of their own, so that what older sources left behind can be removed and they stay.
build() {
    local stage
    say "building $name"
    for stage in dependencies system; do
        build_stage --target "$stage" -t "localhost/ossfuse-csi-$stage"
    done
    build_stage -t "$name"
    rm -f "$archive.part"
    quiet "the archive" buildah push "$name" "docker-archive:$archive.part:$name"
    mv "$archive.part" "$archive"
    buildah rmi --prune >/dev/null 2>&1 || true # one in use by a person stays
}

build_stage() {
    local secrets=() pull=--pull-never
    [ -z "${BASE_IMAGE:-}" ] || pull=--pull
    [ ! -r "$authority" ] || secrets=(--secret "id=ca,src=$authority")
    quiet "the build" buildah bud --arch "$arch" --isolation chroot --layers "$pull" --format docker "${secrets[@]}" \
        --build-arg "BASE_IMAGE=$base_image" --build-arg "VERSION=$version" \
        --ignorefile "$cache/context/.dockerignore" -f "$cache/context/Dockerfile" "$@" "$cache/context"
}

# The versions in .venv are preferred: the image ships what the tests run with.
lock() {
    local tools=$work/uv have line name source
    quiet "uv" python3 -m venv "$tools"
    quiet "uv" "$tools/bin/pip" install -q 'uv>=0.8,<1'
    .venv/bin/pip freeze --exclude-editable >"$tools/have.txt"
    for line in "requirements pyproject.toml $tools/have.txt" "build tools/image/build.in tools/image/requirements.txt"; do
        read -r name source have <<<"$line"
        quiet "resolving $source" "$tools/bin/uv" pip compile -q --universal --python-version 3.11 --generate-hashes \
            --no-header --no-annotate -c "$have" -o "$tools/$name.txt" "$source"
        { echo "# Written by \`tools/image.sh lock\`."; cat "$tools/$name.txt"; } >"tools/image/$name.txt"
    done
}

mkdir -p "$cache"
work=$(mktemp -d)
log=$work/log
trap 'rm -rf "$work"' EXIT
renice -n 5 $$ >/dev/null # the tests of others go first
if [ "$action" = lock ]; then
    lock
    exit
fi

[ "$(id -u)" = 0 ] || fail "not root; the base image and the layers need root (sudo tools/image.sh)"
exec 9>"$cache/lock"
flock -n 9 || { say "waiting for another build in this checkout"; flock 9; }
copy_inputs
inputs=$(hash_inputs)
if [ ! -s "$archive" ] || [ "$(cat "$archive.inputs" 2>/dev/null)" != "$inputs" ]; then
    rm -f "$archive.inputs"
    install_tools
    choose_storage
    make_base
    build
    echo "$inputs" >"$archive.inputs"
fi
rm -rf "$cache/context"
printf '%s: %s, %d MB\n' "$archive" "$name" $(($(stat -c %s "$archive") / 1000000))
