"""Local files that the kernel reads in place of a sidecar: registered by the node plugin, in a sidecar's name.

The kernel asks for CAP_SYS_ADMIN, because it keeps the rights of who registers: whenever a file of the mount is opened,
it opens the local file again by those rights, as root then, with the flags of that open, and asks nobody. So a sidecar
must get nothing registered that it could not read by itself, nor anything that could be written that way:

- the volume is mounted read-only, so that no open asks for more than reading, and the device is that of this mount: a
  program may mount FUSE for writing in a user namespace of its own, and would offer that one;
- the file was opened for reading. O_PATH asks for no right to the file at all, so it shows none;
- it is a regular file (of a device or a pipe the kernel would read whatever is behind it), and belongs to the user as
  which the sidecar connected: not one that somebody else has opened for it.

What is refused is in the log, with the reason.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
import struct
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final, Protocol

from csi.handover.channel import Channel
from csi.handover.wire import Register, Registered, Unregister
from csi.volume.units import Seconds

_log = logging.getLogger(__name__)

_BACKING_OPEN: Final = 0x4010E501
_BACKING_CLOSE: Final = 0x4004E502
_FUSE_DEVICE: Final = os.makedev(10, 229)
_ALL_USERS: Final = ["0", "0", "4294967295"]
_MOST: Final = 4096
"""Files of one sidecar at a time: the kernel holds them open, and counts them against nobody's limit."""
_COMPLAINT: Final = 10.0
_HEARING: Final = Seconds(0.2)
_SELF: Final = Path("/proc/self")


class KernelFiles(Protocol):
    """Where files are registered. Calls raise OSError."""

    def may(self) -> bool:
        """Whether the kernel would let this process."""

    def register(self, device: int, file: int) -> int: ...

    def unregister(self, device: int, number: int) -> None: ...


class LinuxKernelFiles:
    """The real ones: ioctls of /dev/fuse, Linux 6.9."""

    def may(self) -> bool:
        """Who mounts has CAP_SYS_ADMIN; the kernel wants that of the first user namespace."""
        return (_SELF / "uid_map").read_text(encoding="ascii").split() == _ALL_USERS

    def register(self, device: int, file: int) -> int:
        return int(fcntl.ioctl(device, _BACKING_OPEN, bytearray(struct.pack("<iIQ", file, 0, 0))))

    def unregister(self, device: int, number: int) -> None:
        fcntl.ioctl(device, _BACKING_CLOSE, bytearray(struct.pack("<I", number)))


class Refused(Exception):
    """`number` is the errno to answer with."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(reason)
        self.number = number


class Registrar:
    """Of one volume, for one thread. `minors` are the connections of the volume's mounts."""

    def __init__(
        self,
        volume_id: str,
        *,
        read_only: bool,
        minors: Callable[[], Collection[int]],
        files: KernelFiles,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._volume_id = volume_id
        self._read_only = read_only
        self._minors = minors
        self._files = files
        self._clock = clock
        self._numbers: set[int] = set()
        self._ours: frozenset[int] = frozenset()
        self._complained = -_COMPLAINT

    @property
    def is_willing(self) -> bool:
        """Whether there is any use in asking."""
        return self._read_only and self._files.may()

    def begin(self) -> None:
        """The volume gets a kernel session that has no files yet."""
        self._numbers.clear()
        self._ours = frozenset()

    def serve(self, channel: Channel, asked: Register | Unregister, descriptors: Sequence[int]) -> None:
        """Do what is asked, or not, and say so. The descriptors stay the caller's. Raises OSError: it does not hear."""
        number, error = 0, 0
        try:
            self._check(descriptors[0])
            if isinstance(asked, Register):
                number = self._register(descriptors[0], descriptors[1], channel.peer.uid)
            else:
                self._unregister(descriptors[0], asked.number)
        except Refused as refused:
            self._complain(str(refused))
            error = refused.number
        except OSError as refused:  # by the kernel: the sidecar's log says so
            error = refused.errno or errno.EIO
        try:
            channel.send(Registered(asked.serial, number, error), timeout=_HEARING)
        except OSError:
            if number:  # nobody will ever know of it
                self._unregister(descriptors[0], number)
            raise

    def _register(self, device: int, file: int, uid: int) -> int:
        self._check_file(file, uid)
        number = self._files.register(device, file)
        self._numbers.add(number)
        return number

    def _unregister(self, device: int, number: int) -> None:
        """Also what a node plugin before this one has registered."""
        self._files.unregister(device, number)
        self._numbers.discard(number)

    def _check(self, device: int) -> None:
        if not self._read_only:
            raise Refused(errno.EPERM, "the volume is not mounted read-only")
        if not is_fuse_device(device):
            raise Refused(errno.EINVAL, "the device is not /dev/fuse")
        connection = _fields(device).get("fuse_connection")  # older kernels do not tell, Linux 6.18 does
        if connection is not None and not self._is_ours(int(connection)):
            raise Refused(errno.EPERM, f"the device is of connection {connection}, which is not this volume's")

    def _check_file(self, file: int, uid: int) -> None:
        flags = fcntl.fcntl(file, fcntl.F_GETFL)
        if flags & os.O_PATH:
            raise Refused(errno.EPERM, "the file was opened with O_PATH, which shows no right to read it")
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise Refused(errno.EINVAL, "the file was not opened for reading alone")
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise Refused(errno.EINVAL, "it is not a regular file")
        if found.st_uid != uid:
            raise Refused(errno.EPERM, f"the file belongs to user {found.st_uid}, the sidecar is user {uid}")
        if len(self._numbers) >= _MOST:
            raise Refused(errno.EMFILE, f"it has {_MOST} files registered already")

    def _is_ours(self, minor: int) -> bool:
        if minor not in self._ours:
            self._ours = frozenset(self._minors())
        return minor in self._ours

    def _complain(self, reason: str) -> None:
        """Once in a while: a sidecar may ask as often as it likes."""
        now = self._clock()
        if now - self._complained >= _COMPLAINT:
            self._complained = now
            _log.warning("a file of the sidecar of %s is not registered with the kernel: %s", self._volume_id, reason)


def is_fuse_device(descriptor: int) -> bool:
    """Whether it is an open /dev/fuse. Raises OSError."""
    found = os.fstat(descriptor)
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == _FUSE_DEVICE


def _fields(descriptor: int) -> dict[str, str]:
    """What /proc says of a descriptor (proc_pid_fdinfo(5))."""
    lines = (_SELF / "fdinfo" / str(descriptor)).read_text(encoding="ascii").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
