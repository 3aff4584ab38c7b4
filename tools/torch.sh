#!/usr/bin/env bash
# Make the Python with torch that tests/torch and the torch works of `make bench` run in, and print its path. It lies in
# .cache/torch/venv, sees everything in .venv (which must be there), and is made anew only when a pin changes.
set -Eeuo pipefail
cd "$(dirname "$0")/.."
fail() { printf 'torch: %s\n' "$*" >&2; exit 1; }

venv=$PWD/.cache/torch/venv
[ -x .venv/bin/python ] || fail "there is no .venv; run tools/setup.sh test first"
content="$PWD $(.venv/bin/python -V) $(cat tools/torch.sh tools/torch-requirements.txt tools/torch_stand_ins.py | sha256sum)"
mkdir -p .cache/torch
exec 9>.cache/torch/lock # made in the background while tests run, and waited for by the lane that needs it
flock 9
if [ "$(cat "$venv/.content" 2>/dev/null)" != "$content" ]; then
    printf 'torch: installing it into .cache/torch/venv (1.5 GB; the first time takes a minute)\n' >&2
    log=.cache/torch/install.log
    .venv/bin/python -m venv --clear "$venv" >"$log" 2>&1 || fail "no virtual environment could be made; see $log"
    packages=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    main=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-deps --no-compile --no-cache-dir -r tools/torch-requirements.txt >>"$log" 2>&1 ||
        fail "pip install -r tools/torch-requirements.txt failed; is the network to PyPI there? $(grep -E '^ERROR' "$log" | tail -n 1) (all of it: $log)"
    printf 'import site; site.addsitedir(%s)\n' "'$main'" >"$packages/of_the_project.pth"
    [ "$(uname -m)" != x86_64 ] || "$venv/bin/python" tools/torch_stand_ins.py "$packages" >>"$log" 2>&1 ||
        fail "the stand-ins for CUDA could not be made; see $log"
    "$venv/bin/python" -c 'import torch; torch.nn.Linear(2, 2)(torch.ones(1, 2)).sum().backward()' >>"$log" 2>&1 ||
        fail "torch does not work; see $log"
    printf '%s' "$content" >"$venv/.content"
fi
printf '%s\n' "$venv/bin/python"
