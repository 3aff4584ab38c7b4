"""`python -m tests.support.record_fuse FILE`: record what this machine's kernel asks of a FUSE server. Needs root.

Every operation is done in a step with a name; what the kernel sends and is answered is written with that name.
Twice: as a server of 7.31 and as one that accepts all that is offered. `tests/unit/fuse/protocol` decodes the result.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import platform
import select
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from csi.handover.kernel import MNT_DETACH, LinuxKernel
from tests.support.raw_fuse import ALL_FLAGS, OLD_FLAGS, RawFuse

_LABEL_SIZE = 64
_IOCTL = 0xC0086600  # _IOWR('f', …, 8 bytes)
_OLD, _ALL = "7.31", "all"
_libc = ctypes.CDLL(None, use_errno=True)


class Recorder:
    """`step` names what the server logs from now on; the server reads the name from memory shared with it."""

    def __init__(self, session: str, lines: Path) -> None:
        self._session = session
        self._lines = lines
        self._label = mmap.mmap(-1, _LABEL_SIZE)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        self.name(name)
        yield
        time.sleep(0.02)  # a RELEASE or FORGET that nobody waits for belongs to the step that caused it

    def name(self, step: str) -> None:
        self._label[:] = step.encode().ljust(_LABEL_SIZE, b"\0")

    def log(self, direction: str, message: bytes) -> None:
        name = self._label[:].rstrip(b"\0").decode()
        with self._lines.open("a") as file:
            file.write(f"{self._session} {name} {direction} {message.hex()}\n")


def record(session: str, lines: Path) -> None:
    recorder = Recorder(session, lines)
    kernel = LinuxKernel()
    with tempfile.TemporaryDirectory(prefix="record-fuse-") as directory:
        descriptor = kernel.open_fuse_device()
        recorder.name("init")
        data = f"fd={descriptor},rootmode=40000,user_id=0,group_id=0,allow_other"
        kernel.mount("record", directory, "fuse.record", 0, data)
        server = os.fork()
        if server == 0:
            minor, flags = (31, OLD_FLAGS) if session == _OLD else (45, ALL_FLAGS)
            RawFuse(descriptor, recorder.log, minor, flags, modern=session == _ALL).serve()
            os._exit(0)
        os.close(descriptor)
        try:
            with recorder.step("init"):
                os.stat(directory)
            perform(Path(directory), recorder, modern=session == _ALL)
        finally:
            with recorder.step("end"):
                kernel.umount2(directory, MNT_DETACH)
            os.waitpid(server, 0)


def perform(root: Path, recorder: Recorder, *, modern: bool) -> None:
    """Each step does one thing; names, offsets and sizes are those the tests expect."""
    step = recorder.step
    file = root / "file"
    with step("create"):
        writer = os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o640)
    with step("write"):
        os.pwrite(writer, b"0123456789", 5)
    with step("fsync"):
        os.fsync(writer)
    with step("fdatasync"):
        os.fdatasync(writer)
    with step("close"):
        os.close(writer)
    with step("lookup-missing"), contextlib.suppress(FileNotFoundError):
        os.stat(root / "missing")
    with step("chmod"):
        os.chmod(file, 0o604)
    with step("chown"):
        os.chown(file, 1001, 1002)
    with step("truncate"):
        os.truncate(file, 12)
    with step("utime"):
        os.utime(file, ns=(1_111_111_111_000_000_001, 1_222_222_222_000_000_002))
    with step("utime-before-1970"):
        os.utime(file, ns=(-1_500_000_000, -2_000_000_000))
    with step("utime-now"):
        os.utime(file)
    with step("open"):
        reader = os.open(file, os.O_RDWR)
    with step("ftruncate"):
        os.ftruncate(reader, 64)
    with step("read"):
        os.pread(reader, 4096, 0)
    with step("lseek"):
        os.lseek(reader, 3, os.SEEK_DATA)
    with step("fallocate"):
        os.posix_fallocate(reader, 100, 200)
    with step("getlk"):
        fcntl.fcntl(reader, fcntl.F_GETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 10, 20, 0))
    with step("setlk"):
        fcntl.lockf(reader, fcntl.LOCK_EX | fcntl.LOCK_NB, 20, 10)
    with step("flock"):
        fcntl.flock(reader, fcntl.LOCK_SH | fcntl.LOCK_NB)
    with step("setlkw-interrupted"):
        wait_for_a_lock(reader)
    with step("ioctl"):
        fcntl.ioctl(reader, _IOCTL, bytearray(b"abcdefgh"))
    with step("poll"):
        poller = select.poll()
        poller.register(reader, select.POLLIN | select.POLLPRI)
        poller.poll(100)
    with step("copy-range"):
        target = os.open(root / "copy", os.O_CREAT | os.O_RDWR)
        os.copy_file_range(reader, target, 40, 3, 7)
        os.close(target)
    with step("notify-store"):
        fcntl.ioctl(reader, _IOCTL | 3, bytearray(8))
    with step("notify-retrieve"):
        os.pread(reader, 10, 0)
        fcntl.ioctl(reader, _IOCTL | 1, bytearray(8))
    with step("close-reader"):
        os.close(reader)
    with step("mkdir"):
        os.mkdir(root / "dir", 0o711)
    with step("mknod"):
        os.mknod(root / "fifo", stat.S_IFIFO | 0o622)
    with step("mknod-device"):
        os.mknod(root / "dev", stat.S_IFCHR | 0o600, os.makedev(5, 7))
    with step("symlink"):
        os.symlink("the/target", root / "link")
    with step("readlink"):
        os.readlink(root / "link")
    with step("hard-link"):
        os.link(file, root / "dir/hard")
    with step("rename"):
        os.rename(root / "dir/hard", root / "moved")
    with step("rename2"):
        _libc.renameat2(-100, os.fsencode(root / "moved"), -100, os.fsencode(root / "dir/again"), 1)
    with step("setxattr"):
        os.setxattr(file, "user.color", b"blue", os.XATTR_CREATE)
    with step("getxattr"):
        os.getxattr(file, "user.color")
    with step("getxattr-size"):
        _libc.getxattr(os.fsencode(file), b"user.color", None, 0)
    with step("listxattr"):
        os.listxattr(file)
    with step("removexattr"):
        os.removexattr(file, "user.color")
    with step("statfs"):
        os.statvfs(root)
    with step("access"):
        os.access(file, os.R_OK | os.W_OK)
    with step("readdir"):
        os.listdir(root)
    with step("fsyncdir"):
        directory = os.open(root / "dir", os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(directory)
        os.close(directory)
    with step("tmpfile"), contextlib.suppress(OSError):
        os.close(os.open(root / "dir", os.O_TMPFILE | os.O_RDWR, 0o600))
    with step("statx"):
        subprocess.run(["stat", "--format=%W", str(file)], stdout=subprocess.DEVNULL, check=True)
    with step("other-user"):
        as_other_user(lambda: os.close(os.open(root / "dir/theirs", os.O_CREAT | os.O_WRONLY, 0o600)))
    with step("unlink"):
        os.unlink(root / "copy")
    with step("rmdir"):
        os.unlink(root / "dir/again")
        os.unlink(root / "dir/theirs")
        os.rmdir(root / "dir")
    for name in ("m1", "m2", "m3"):
        with step("many"):
            (root / name).touch()
    with step("batch-forget"):
        reader = os.open(file, os.O_RDONLY)
        fcntl.ioctl(reader, _IOCTL | 2, bytearray(8))
        os.close(reader)


def wait_for_a_lock(descriptor: int) -> None:
    """F_SETLKW that is never given, until a signal ends it."""

    def interrupted(*_: object) -> None:
        raise InterruptedError

    signal.signal(signal.SIGALRM, interrupted)
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGALRM)).start()
    with contextlib.suppress(InterruptedError):
        fcntl.lockf(descriptor, fcntl.LOCK_EX, 1, 5000)


def as_other_user(work: object) -> None:
    child = os.fork()
    if child == 0:
        os.setgroups([1002, 1003])
        os.setgid(1002)
        os.setuid(1001)
        with contextlib.suppress(OSError):
            work()  # type: ignore[operator]
        os._exit(0)
    os.waitpid(child, 0)


def main() -> int:
    target = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as scratch:
        lines = Path(scratch) / "lines"
        for session in (_OLD, _ALL):
            record(session, lines)
        header = f"# Linux {platform.release()}; by tests/support/record_fuse.py; session step direction bytes\n"
        target.write_text(header + lines.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
