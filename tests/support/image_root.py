"""The built container image without a container engine: its archive read, its root file system unpacked and entered.

A program inside sees what a container with `readOnlyRootFilesystem: true` sees: a root it cannot write to, /proc, a few
devices, and one writable directory of the test's at /run/ossfuse. It runs as the image's user, with its environment,
and everything it was given is gone when it ends.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

CHECKOUT: Final = Path(__file__).resolve().parents[2]
ARCHIVE: Final = CHECKOUT / ".cache" / "image" / "ossfuse-csi.tar"

_WHITEOUT: Final = ".wh."
_ENTER: Final = """
set -e
root=$1 shared=$2 user=$3; shift 3
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in "null 3" "zero 5" "random 8" "urandom 9"; do
    mknod -m 666 "$root/dev/${device% *}" c 1 "${device#* }"
done
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mkdir "$root/run/ossfuse"
mount --bind "$shared" "$root/run/ossfuse"
mount -o remount,bind,ro "$root"
exec chroot --userspec="$user" "$root" /usr/bin/env -i "$@"
"""


@dataclass(frozen=True)
class Image:
    """`config` is the image's configuration as the OCI image specification words it; `size` that of all layers."""

    tag: str
    config: Mapping[str, Any]
    size: int
    root: Path

    def start(
        self,
        *command: str,
        shared: Path,
        environment: Mapping[str, str] | None = None,
        user: str | None = None,
        stdout: int | IO[str] = subprocess.PIPE,
        stderr: int | IO[str] = subprocess.PIPE,
    ) -> subprocess.Popen[str]:
        """`command` in the image, as its user unless another is given. It is the process that is returned."""
        variables = [*self.config["Env"], *(f"{name}={value}" for name, value in (environment or {}).items())]
        inside = [str(self.root), str(shared), user or str(self.config["User"]), *variables, *command]
        enter = ["unshare", "--mount", "/bin/sh", "-c", _ENTER, "enter", *inside]
        return subprocess.Popen(enter, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, text=True)

    def run(self, *command: str, shared: Path, environment: Mapping[str, str] | None = None) -> str:
        """What `command` prints; an assertion fails if it does."""
        process = self.start(*command, shared=shared, environment=environment)
        try:
            output, errors = process.communicate(timeout=120)
        finally:
            process.kill()
        assert process.returncode == 0, f"{' '.join(command)} ended with {process.returncode}: {errors}"
        return output


def build() -> None:
    """Bring the archive up to date with the sources; from nothing that takes minutes."""
    script = str(CHECKOUT / "tools" / "image.sh")
    builder = subprocess.Popen([script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0)
    try:
        _, errors = builder.communicate()
    except BaseException:
        os.killpg(builder.pid, signal.SIGKILL)  # the script alone would leave its builder behind
        builder.wait()
        raise
    assert builder.returncode == 0, errors


def unpack(archive: Path, root: Path) -> Image:
    """Read a docker-archive; its layers end up in `root`, one over the other."""
    with tarfile.open(archive) as outer:
        (manifest,) = json.load(_member(outer, "manifest.json"))
        config = json.load(_member(outer, manifest["Config"]))
        size = 0
        for layer in manifest["Layers"]:
            size += outer.getmember(layer).size
            with tarfile.open(fileobj=_member(outer, layer)) as inner:
                _apply(inner, root)
    return Image(manifest["RepoTags"][0], config["config"], size, root)


def _member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    file = archive.extractfile(name)
    assert file is not None, f"{name} is no file"
    return file


def _apply(layer: tarfile.TarFile, root: Path) -> None:
    members = layer.getmembers()
    whiteouts = [member.name for member in members if _WHITEOUT in member.name]
    assert not whiteouts, f"the layers are meant to only add: {whiteouts}"
    layer.extractall(root, members=members, filter="fully_trusted")


def programs(directories: Sequence[Path]) -> set[str]:
    """Names of everything in these directories."""
    return {entry.name for directory in directories if directory.is_dir() for entry in directory.iterdir()}
