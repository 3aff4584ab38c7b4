"""Files that the kernel reads itself: an open may name a local file, and no read of it comes here.

The kernel keeps one rule, an I/O mode for each inode: while an open of it is passed through, every other open of it
must name the same local file, and while it is open in any other way, no open may be passed through. What breaks the
rule fails with EIO. So this counts the opens of every inode. An open that finds another version passed through is
answered with that file too, but as direct I/O, which sends its reads here; only a mapping of it shows what the others
have.

An open for writing would have to name the local file as well, and a shared mapping of it would change that file. So
only mounts that are read-only pass anything through.
"""

from __future__ import annotations

import errno
import logging
import os
import struct
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from csi.fs.types import OpenFile
from csi.fuse.protocol import replies
from csi.fuse.protocol.constants import DEV_IOC_BACKING_CLOSE, DEV_IOC_BACKING_OPEN, OpenFlag
from csi.fuse.served import Backed
from csi.volume.units import FileHandle, InodeNumber

_log = logging.getLogger(__name__)

_ALLOWED: Final = OpenFlag.PASSTHROUGH | OpenFlag.DIRECT_IO | OpenFlag.NOFLUSH
"""What the kernel takes together with PASSTHROUGH."""
_CAP_SYS_ADMIN: Final = 21
_ALL_USERS: Final = ["0", "0", "4294967295"]
_NEVER: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ELOOP})
"""The kernel will refuse every file. ELOOP: they lie on a filesystem that lies on another one."""


class BackingFiles(Protocol):
    """Where local files get the numbers by which answers name them. Raises OSError."""

    def register(self, descriptor: int) -> int: ...

    def unregister(self, number: int) -> None: ...


class Controlled(Protocol):
    """What is needed of `csi.fuse.native.device.Device`."""

    def control(self, command: int, argument: bytes) -> int: ...


class KernelBackingFiles:
    """Of the connection of `device`. The kernel asks for CAP_SYS_ADMIN in the first user namespace."""

    def __init__(self, device: Controlled) -> None:
        self._device = device

    def register(self, descriptor: int) -> int:
        return self._device.control(DEV_IOC_BACKING_OPEN, replies.backing_map(descriptor))

    def unregister(self, number: int) -> None:
        self._device.control(DEV_IOC_BACKING_CLOSE, struct.pack("<I", number))


def may_register(process: Path = Path("/proc/self")) -> bool:
    """Whether the kernel lets this process register local files."""
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines() if ":" in line)
    capabilities = int(status.get("CapEff", "0"), 16)
    return bool(capabilities >> _CAP_SYS_ADMIN & 1) and (process / "uid_map").read_text().split() == _ALL_USERS


@dataclass(slots=True)
class _Inode:
    """`opens` of any kind. `number` of the local file they are passed through to, 0 for none; `content` is what it
    holds."""

    opens: int = 0
    number: int = 0
    content: int = 0


@dataclass(frozen=True, slots=True)
class PassthroughStatistics:
    """`passed` opens since the start, `direct` ones that found another version passed through; `inodes` open now."""

    passed: int
    direct: int
    inodes: int


class Passthrough:
    """`_lock` guards everything else; no call of the filesystem is made with it."""

    def __init__(self, filesystem: Backed, files: BackingFiles) -> None:
        self._filesystem = filesystem
        self._files = files
        self._lock = threading.Lock()
        self._inodes: dict[int, _Inode] = {}
        self._handles: dict[int, int] = {}
        self._refused = False
        self._passed = 0
        self._direct = 0

    def opened(self, inode: InodeNumber, opened: OpenFile, flags: int) -> tuple[int, int]:
        """Flags and number of the answer to an open for reading that would be answered with `flags`. To be followed by
        `released`, whatever becomes of the answer."""
        backing = None
        if not opened.direct_io and not self._refused:
            backing = self._filesystem.backing(opened.handle)
        try:
            with self._lock:
                found = self._inodes.setdefault(inode, _Inode())
                if backing is not None and found.opens == 0:
                    found.number = self._register(backing.descriptor)
                    found.content = backing.content
                found.opens += 1
                self._handles[opened.handle] = inode
                if not found.number:
                    return flags, 0
                flags = flags & _ALLOWED | OpenFlag.PASSTHROUGH
                if backing is None or backing.content != found.content:
                    self._direct += 1
                    flags |= OpenFlag.DIRECT_IO
                else:
                    self._passed += 1
                return flags, found.number
        finally:
            if backing is not None:
                os.close(backing.descriptor)

    def released(self, handle: FileHandle) -> None:
        """The kernel has let go of it, or never got it."""
        with self._lock:
            inode = self._handles.pop(handle, None)
            if inode is None:
                return
            found = self._inodes[inode]
            found.opens -= 1
            if found.opens:
                return
            del self._inodes[inode]
            if found.number:
                try:
                    self._files.unregister(found.number)
                except OSError as error:
                    _log.debug("backing file %d was not let go: %s", found.number, error)

    def statistics(self) -> PassthroughStatistics:
        with self._lock:
            passed = sum(found.number != 0 for found in self._inodes.values())
            return PassthroughStatistics(self._passed, self._direct, passed)

    def _register(self, descriptor: int) -> int:
        """0 when the kernel does not take it: it is read through this server then."""
        try:
            return self._files.register(descriptor)
        except OSError as error:
            self._refused = error.errno in _NEVER
            _log.warning(
                "the kernel does not pass %s through to the disk cache: %s",
                "files" if self._refused else "a file",
                error.strerror,
            )
            return 0
