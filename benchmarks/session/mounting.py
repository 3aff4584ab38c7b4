"""Mounts of the tree: mounted here, served by another process, gone on leaving.

All servers get the same mount(2) and the same read-ahead, so that the kernel asks each of them for the same. The C
programs are compiled when they are first needed.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from csi.errors import MountError
from csi.handover.kernel import MNT_DETACH, MS_NODEV, MS_NOSUID, LinuxKernel

READ_AHEAD_KIB = 1024
C_THREADS = 8
_HERE = Path(__file__).parent
_ROOT = _HERE.parents[1]
_MOUNT_DATA = "fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions"
_ENDING_SECONDS = 10

OURS, PYFUSE3, C_SINGLE, C_MULTI, C_SHARED = "own", "pyfuse3", "c-single", "c-multi", "c-shared"
_OUR_SERVER = (sys.executable, "-m", "benchmarks.session.server", "--descriptor", "{fd}", "--copying", "{copying}")
SERVERS: Mapping[str, Sequence[str]] = {
    OURS: (*_OUR_SERVER, "--session", "own"),
    PYFUSE3: (*_OUR_SERVER, "--session", "pyfuse3"),
    C_SINGLE: ("{reference}", "{fd}", "0", "0"),
    C_MULTI: ("{reference}", "{fd}", str(C_THREADS), "1"),
    C_SHARED: ("{reference}", "{fd}", str(C_THREADS), "0"),
}
COMPARED = (OURS, PYFUSE3, C_SINGLE, C_MULTI)
"""All but `C_SHARED`, whose threads share one descriptor as ours do: for what clones of it are worth."""


@dataclass(frozen=True, slots=True)
class Programs:
    reference: Path
    load: Path
    copying: Path


def compile_programs(directory: Path) -> Programs:
    """gcc with warnings as errors; raises CalledProcessError, with gcc's words on stderr."""
    fuse = subprocess.run(["pkg-config", "--cflags", "--libs", "fuse3"], check=True, capture_output=True, text=True)
    programs = Programs(directory / "reference", directory / "load", directory / "copying.so")
    for program in (programs.reference, programs.load):
        libraries = fuse.stdout.split() if program is programs.reference else []
        warnings = ["-Wall", "-Wextra", "-Werror"]
        source = str(_HERE / f"{program.name}.c")
        subprocess.run(["gcc", "-O2", *warnings, "-o", str(program), source, *libraries, "-pthread"], check=True)
    include = sysconfig.get_paths()["include"]
    library = ["gcc", "-O2", "-shared", "-fPIC", f"-I{include}", "-o", str(programs.copying), str(_HERE / "copying.c")]
    subprocess.run(library, check=True)
    return programs


@dataclass
class Served:
    """One mount. `spinning` is the thread of another program that takes a processor where the server has no Python."""

    name: str
    root: Path
    process: subprocess.Popen[str]
    beside: subprocess.Popen[bytes] | None = field(default=None)

    def cpu_seconds(self) -> float:
        """Of all threads of the server, to the nanosecond: clock_getcpuclockid(3) of another process."""
        return time.clock_gettime((~self.process.pid << 3) | 2)

    def spin(self) -> None:
        """One thread of the server computes from now on; for a server in C, a program beside it."""
        if self._is_python():
            self._tell("spin")
        else:
            self.beside = subprocess.Popen([sys.executable, "-c", "while True: pass"])

    def rest(self) -> None:
        if self._is_python():
            self._tell("rest")
        elif self.beside is not None:
            self.beside.kill()
            self.beside.wait()
            self.beside = None

    def _is_python(self) -> bool:
        return self.name in (OURS, PYFUSE3)

    def _tell(self, word: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        if self.process.stdout.readline() != "done\n":
            raise SystemExit(f"{self.name} did not {word}")


@contextlib.contextmanager
def served(name: str, programs: Programs, scratch: Path) -> Iterator[Served]:
    """A fresh mount of the tree, answered by the server `name`."""
    root = scratch / name
    root.mkdir(exist_ok=True)
    kernel = LinuxKernel()
    descriptor = kernel.open_fuse_device()
    try:
        kernel.mount(f"session:{name}", str(root), "fuse.session", MS_NODEV | MS_NOSUID, _MOUNT_DATA.format(descriptor))
        process = _start(name, programs, descriptor, scratch)
    finally:
        os.close(descriptor)
    mounted = Served(name, root, process)
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise SystemExit(f"{name} did not serve; see {scratch / name}.log")
        minor = os.minor(root.stat().st_dev)
        Path(f"/sys/class/bdi/0:{minor}/read_ahead_kb").write_text(str(READ_AHEAD_KIB))
        yield mounted
    finally:
        mounted.rest() if mounted.beside else None
        with contextlib.suppress(MountError):
            kernel.umount2(str(root), MNT_DETACH)
        _end(process)


def _start(name: str, programs: Programs, descriptor: int, scratch: Path) -> subprocess.Popen[str]:
    words = [
        word.format(fd=descriptor, reference=programs.reference, copying=programs.copying) for word in SERVERS[name]
    ]
    with (scratch / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            pass_fds=[descriptor],
            cwd=_ROOT,
        )


def _end(process: subprocess.Popen[str]) -> None:
    """An unmounted server ends by itself, but not while an answer is still being waited for."""
    try:
        process.wait(_ENDING_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
