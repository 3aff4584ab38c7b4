#!/usr/bin/env bash
# Make this machine able to build, test and demonstrate ossfuse-csi: Debian packages, a virtual environment in
# .venv, the package itself (editable). Safe to run again and again, also after an interruption: it does only what
# is missing. What it cannot provide it names in one line.
#   tools/setup.sh           what `make demo` and `ossfuse` need
#   tools/setup.sh test      also what `make test` needs (Go for csi-sanity, clients used as oracles)
set -Eeuo pipefail
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { printf 'setup: cannot continue: %s\n' "$*" >&2; exit 1; }
trap 'fail "tools/setup.sh line $LINENO: $BASH_COMMAND"' ERR
quiet() { # run, its output kept in a file that is shown only where it helps
    "$@" >"$log" 2>&1
}
reason() { # the last line of the log that looks like an error
    grep -E '^(E|ERROR|error|fatal)[: ]' "$log" | tail -n 1 || tail -n 1 "$log"
}

flavour=${1:-run}
export DEBIAN_FRONTEND=noninteractive

check_machine() {
    [ "$(uname -s)" = Linux ] || fail "this is $(uname -s); mounting needs Linux"
    [ "$(id -u)" = 0 ] || fail "not root; mounts and cgroups need root (sudo make ...)"
    [ -c /dev/fuse ] || fail "/dev/fuse is missing; load the fuse module (modprobe fuse) or run on a machine that has it"
    (: <>/dev/fuse) 2>/dev/null || fail "/dev/fuse cannot be opened; allow this container the device (docker run --privileged)"
    unshare --mount true 2>/dev/null || fail "root may not mount here; give CAP_SYS_ADMIN (docker run --privileged)"
}

find_python() { # its name, or nothing
    local candidate
    for candidate in python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s' "$candidate"
            return
        fi
    done
}

# What the node of tests/cluster runs besides what is built for it. Asked for by program, not by package: a machine with
# Docker has containerd and runc under other names, and Debian's would remove those.
packages_of_the_cluster() {
    command -v containerd >/dev/null || echo containerd
    command -v runc >/dev/null || echo runc
    command -v etcd >/dev/null || echo etcd-server
    command -v ip >/dev/null || echo iproute2
    command -v iptables >/dev/null || echo iptables
    command -v nsenter >/dev/null || echo util-linux
    [ -x /usr/lib/cni/bridge ] || echo containernetworking-plugins
    { command -v busybox >/dev/null && ! ldd "$(command -v busybox)" >/dev/null 2>&1; } || echo busybox-static
}

install_debian_packages() {
    local wanted=(gcc libc6-dev pkg-config libfuse3-dev ca-certificates util-linux mount) python missing
    python=$(find_python)
    case $(command -v "${python:-python3}" || true) in
        "") wanted+=(python3 python3-venv python3-dev) ;;
        /usr/bin/* | /bin/*) wanted+=("${python:-python3}-venv" "${python:-python3}-dev") ;;
    esac
    [ "$flavour" != test ] || wanted+=($(packages_of_the_cluster))
    missing=$({ dpkg-query -W -f '${Package} ${db:Status-Status}\n' "${wanted[@]}" 2>/dev/null || true; } |
        awk -v wanted="${wanted[*]}" '$2 == "installed" { have[$1] }
            END { for (n = split(wanted, name, " "); n; n--) if (!(name[n] in have)) printf "%s ", name[n] }')
    missing=${missing% }
    [ -n "$missing" ] || return 0
    say "installing Debian packages: $missing"
    quiet dpkg --configure -a || fail "dpkg --configure -a failed: $(reason)" # an installation was interrupted
    quiet apt-get update -qq || fail "apt-get update failed; is the network to Debian's packages there? $(reason)"
    # shellcheck disable=SC2086 - a list of words
    quiet apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=300 $missing ||
        fail "apt-get install $missing failed; is the network to Debian's packages there? $(reason)"
    local service
    for service in containerd etcd; do # the tests start their own; the machine need not run what was installed for them
        case " $missing " in *" $service "* | *" $service-server "*) [ ! -d /run/systemd/system ] || systemctl disable --now "$service" >/dev/null 2>&1 || true ;; esac
    done
}

check_other_distribution() {
    local name
    name=$(. /etc/os-release 2>/dev/null && echo "${PRETTY_NAME:-}" || true)
    command -v gcc >/dev/null && pkg-config --exists fuse3 2>/dev/null ||
        fail "unknown distribution (${name:-no /etc/os-release}): install gcc, pkg-config and the headers of Python and libfuse3 yourself, then run this again"
}

# .venv/.home says which checkout and Python a finished .venv was made for; .venv/.content what is installed in it.
# A .venv without the first was interrupted, moved or made by another Python: its parts do not fit together.
make_environment() {
    local home content
    home="$PWD $("$python" -V)"
    content="$flavour $(cat pyproject.toml setup.py proto/csi/v1/csi.proto csi/fuse/native/*.p[xy]* csi/oss/*.pyx | sha256sum)"
    if [ "$(cat .venv/.home 2>/dev/null)" = "$home" ]; then
        case $(cat .venv/.content 2>/dev/null) in
            "$content" | "test ${content#* }") .venv/bin/python -c 'import csi.v1.csi_pb2_grpc, csi.fuse.native.device' 2>/dev/null && return ;;
        esac
    else
        quiet "$python" -m venv --clear .venv || fail "$python -m venv .venv failed: $(reason)"
    fi
    say "installing Python packages into .venv (the first time takes a minute or two)"
    rm -f .venv/.home .venv/.content
    pip_install --upgrade 'pip>=24'
    case $flavour in
        test) pip_install -e '.[test]' ;;
        *) pip_install -e . ;;
    esac
    printf '%s' "$content" >.venv/.content
    printf '%s' "$home" >.venv/.home
}

pip_install() {
    quiet .venv/bin/python -m pip install --disable-pip-version-check "$@" && return
    cp "$log" .venv/setup.log
    fail "pip install $* failed; is the network to PyPI there? $(reason) (all of it: .venv/setup.log)"
}

check_machine
mkdir -p .cache
exec 9>.cache/setup.lock # `make -j demo test` would install twice at the same time
flock -n 9 || { say "waiting for another setup of this checkout"; flock 9; }
log=$(mktemp)
trap 'rm -f "$log"' EXIT

if command -v dpkg-query >/dev/null && command -v apt-get >/dev/null; then install_debian_packages; else check_other_distribution; fi
python=$(find_python)
[ -n "$python" ] || fail "no Python >= 3.11 found; install one (Debian 12: apt-get install python3)"
make_environment
if [ "$flavour" = test ]; then
    tools/go-tools.sh || fail "the Go tools for the tests could not be built; the message is above"
    tools/cluster-binaries.sh || fail "the cluster for the tests could not be built; the message is above"
fi
