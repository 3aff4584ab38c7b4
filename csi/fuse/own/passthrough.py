"""Files that the kernel reads itself: an open may name a local file, and no read of it comes here.

The kernel keeps one rule, an I/O mode for each inode: while an open of it is passed through, every other open of it
must name the same local file, and while it is open in any other way, no open may be passed through. What breaks the
rule fails with EIO. So this counts the opens of every inode. An open that finds another version passed through is
answered with that file too, but as direct I/O, which sends its reads here; only a mapping of it shows what the others
have.

Where this process may not register local files, somebody else may do it for it. That can take a moment, or fail: the
file is then read through this server, as long as an open of it lasts.

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

from csi.fs.types import Backing, OpenFile
from csi.fuse.protocol import replies
from csi.fuse.protocol.constants import DEV_IOC_BACKING_CLOSE, DEV_IOC_BACKING_OPEN, OpenFlag
from csi.fuse.requests import PassthroughStatistics
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
    """Where local files get the numbers by which answers name them. Raises OSError. For any thread."""

    def register(self, descriptor: int) -> int:
        """0: not now, and that is all there is to say. May take a moment."""

    def unregister(self, number: int) -> None: ...

    def close(self) -> None:
        """The device is about to be closed; nothing is done any more when this returns."""


class Registrar(Protocol):
    """Another process that may do it (`csi/sidecar/passing.py`)."""

    def is_there(self) -> bool: ...

    def files(self, device: int) -> BackingFiles:
        """For the connection of that descriptor, until they are closed."""


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

    def close(self) -> None:
        """The device itself says that it is closed."""


def may_register(process: Path = Path("/proc/self")) -> bool:
    """Whether the kernel lets this process register local files."""
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines() if ":" in line)
    capabilities = int(status.get("CapEff", "0"), 16)
    return bool(capabilities >> _CAP_SYS_ADMIN & 1) and (process / "uid_map").read_text().split() == _ALL_USERS


@dataclass(slots=True)
class _Inode:
    """`opens` of any kind. `number` of the local file they are passed through to, 0 for none; `content` is what it
    holds. `deciding`: its first open is finding out, and the others wait for that."""

    opens: int = 0
    number: int = 0
    content: int = 0
    deciding: bool = False


class Passthrough:
    """`_changed` guards everything else, and is notified when something is decided. Neither the filesystem nor `files`
    is called with it."""

    def __init__(self, filesystem: Backed, files: BackingFiles) -> None:
        self._filesystem = filesystem
        self._files = files
        self._changed = threading.Condition()
        self._inodes: dict[int, _Inode] = {}
        self._handles: dict[int, int] = {}
        self._refused = False
        self._said = 0
        self._passed = 0
        self._direct = 0

    def opened(self, inode: InodeNumber, opened: OpenFile, flags: int) -> tuple[int, int]:
        """Flags and number of the answer to an open for reading that would be answered with `flags`. To be followed by
        `released`, whatever becomes of the answer. May take a moment."""
        backing = None
        if not opened.direct_io and not self._refused:
            backing = self._filesystem.backing(opened.handle)
        try:
            found = self._decided(inode, opened.handle, backing)
        finally:
            if backing is not None:
                os.close(backing.descriptor)
        if not found.number:
            return flags, 0
        flags = flags & _ALLOWED | OpenFlag.PASSTHROUGH
        differs = backing is None or backing.content != found.content
        with self._changed:
            self._direct += differs
            self._passed += not differs
            first = self._passed == 1 and not differs
        if first:
            _log.info("the kernel reads files that are whole in the disk cache by itself")
        return flags | (OpenFlag.DIRECT_IO if differs else 0), found.number

    def released(self, handle: FileHandle) -> None:
        """The kernel has let go of it, or never got it."""
        with self._changed:
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

    def close(self) -> None:
        """Before the device is closed."""
        self._files.close()

    def statistics(self) -> PassthroughStatistics:
        with self._changed:
            passed = sum(found.number != 0 for found in self._inodes.values())
            return PassthroughStatistics(self._passed, self._direct, passed)

    def _decided(self, inode: int, handle: int, backing: Backing | None) -> _Inode:
        """What all opens of `inode` are, of which this is one now. `number` and `content` stay while it is one."""
        with self._changed:
            found = self._inodes.setdefault(inode, _Inode())
            deciding = backing is not None and found.opens == 0
            found.opens += 1
            self._handles[handle] = inode
            if backing is None or not deciding:
                self._changed.wait_for(lambda: not found.deciding)
                return found
            found.deciding = True
        number = 0
        try:
            number = self._register(backing.descriptor)
        finally:
            with self._changed:
                found.number, found.content, found.deciding = number, backing.content, False
                self._changed.notify_all()
        return found

    def _register(self, descriptor: int) -> int:
        """0 when the kernel does not take it: it is read through this server then."""
        try:
            return self._files.register(descriptor)
        except OSError as error:
            number = error.errno or 0
            self._refused = number in _NEVER
            if number != self._said:  # every open of every file may meet the same
                self._said = number
                what = "files" if self._refused else "a file"
                _log.warning("the kernel does not pass %s through to the disk cache: %s", what, os.strerror(number))
            return 0
