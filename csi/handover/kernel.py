"""The system calls the hand-over needs, behind one protocol so that tests can make each of them fail.

`LinuxKernel` calls libc through ctypes (which lets go of the GIL during a call). It promises a `MountError` with the
call, its arguments, the kernel's errno and what to do about it. It knows nothing of volumes or sidecars, and nothing
else in this room makes these calls.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from typing import Final, Protocol

from csi.errors import MountError

MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8

MNT_FORCE: Final = 1
MNT_DETACH: Final = 2
UMOUNT_NOFOLLOW: Final = 8

PR_SET_DUMPABLE: Final = 4
PR_CAPBSET_READ: Final = 23
PR_CAPBSET_DROP: Final = 24
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4

# the same numbers on every architecture
_OPEN_TREE: Final = 428
_MOVE_MOUNT: Final = 429
_FSOPEN: Final = 430
_FSCONFIG: Final = 431
_FSMOUNT: Final = 432

_OPEN_TREE_CLONE: Final = 1
_FSOPEN_CLOEXEC: Final = 1
_FSCONFIG_SET_FLAG: Final = 0
_FSCONFIG_SET_STRING: Final = 1
_FSCONFIG_CMD_CREATE: Final = 6
_FSMOUNT_CLOEXEC: Final = 1
_MOVE_MOUNT_F_EMPTY_PATH: Final = 0x4
_MOVE_MOUNT_BENEATH: Final = 0x200
_AT_FDCWD: Final = -100
_CAPABILITY_VERSION_3: Final = 0x20080522
_SYS_CAPSET: Final = {"x86_64": 126, "aarch64": 91, "riscv64": 91, "s390x": 185, "ppc64le": 184}


class Kernel(Protocol):
    """Each method raises MountError."""

    def mount(self, source: str, target: str, fstype: str, flags: int, data: str) -> None:
        """mount(2)."""

    def mount_beneath(self, source: str, target: str, fstype: str, flags: int, data: str) -> None:
        """As `mount`, but below the topmost mount on `target`, which is to be taken off then: so nobody finds what is
        there without a mount. move_mount(2) with MOVE_MOUNT_BENEATH, Linux 6.5."""

    def umount2(self, target: str, flags: int) -> None:
        """umount2(2)."""

    def open_fuse_device(self) -> int:
        """A new /dev/fuse descriptor, close-on-exec."""

    def clone_tree(self, directory: str) -> int:
        """open_tree(2) with OPEN_TREE_CLONE: a descriptor of `directory` in a detached private mount, which pins
        neither the mount it was taken from nor its name."""

    def prctl(self, option: int, argument: int = 0) -> int:
        """prctl(2) with one argument; acts on the calling thread."""

    def drop_capabilities(self) -> None:
        """capset(2): no effective, permitted or inheritable capability for the calling thread."""

    def write_control(self, path: str, value: str) -> None:
        """Write one value to a control file of sysfs or fusectl."""


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapabilityData(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


class LinuxKernel:
    """The real one. Stateless apart from the libc handle; safe from any thread."""

    def __init__(self, fuse_device: str = "/dev/fuse") -> None:
        self._fuse_device = fuse_device
        libc = ctypes.CDLL(None, use_errno=True)
        text, number, unsigned = ctypes.c_char_p, ctypes.c_int, ctypes.c_ulong
        libc.mount.argtypes = (text, text, text, unsigned, text)
        libc.mount.restype = number
        libc.umount2.argtypes = (text, number)
        libc.umount2.restype = number
        libc.prctl.argtypes = (number, unsigned, unsigned, unsigned, unsigned)
        libc.prctl.restype = number
        libc.syscall.restype = ctypes.c_long
        self._libc = libc

    def mount(self, source: str, target: str, fstype: str, flags: int, data: str) -> None:
        arguments = (os.fsencode(source), os.fsencode(target), fstype.encode(), flags, os.fsencode(data) or None)
        if self._libc.mount(*arguments) != 0:
            raise _refused(f"mount of {fstype} on {target}")

    def mount_beneath(self, source: str, target: str, fstype: str, flags: int, data: str) -> None:
        what = f"mount of {fstype} beneath what is on {target}"
        kind, _, subtype = fstype.partition(".")
        options = [f"source={source}", *([f"subtype={subtype}"] if subtype else []), *data.split(",")]
        if flags & MS_RDONLY:
            options.append("ro")
        opened: list[int] = []
        try:
            opened.append(context := self._call(what, _FSOPEN, kind, _FSOPEN_CLOEXEC))
            for option in options:
                key, equals, value = option.partition("=")
                if equals:
                    self._call(what, _FSCONFIG, context, _FSCONFIG_SET_STRING, key, value, 0)
                else:
                    self._call(what, _FSCONFIG, context, _FSCONFIG_SET_FLAG, key, 0, 0)
            self._call(what, _FSCONFIG, context, _FSCONFIG_CMD_CREATE, 0, 0, 0)
            # MOUNT_ATTR_RDONLY, _NOSUID and _NODEV are the same bits as MS_*
            opened.append(mount := self._call(what, _FSMOUNT, context, _FSMOUNT_CLOEXEC, flags))
            where = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_BENEATH
            self._call(what, _MOVE_MOUNT, mount, "", _AT_FDCWD, target, where)
        finally:
            for descriptor in opened:
                os.close(descriptor)

    def umount2(self, target: str, flags: int) -> None:
        if self._libc.umount2(os.fsencode(target), flags) != 0:
            raise _refused(f"umount of {target}")

    def open_fuse_device(self) -> int:
        try:
            return os.open(self._fuse_device, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise mount_error(f"open {self._fuse_device}", error.errno or 0) from error

    def clone_tree(self, directory: str) -> int:
        flags = _OPEN_TREE_CLONE | os.O_CLOEXEC
        return self._call(f"open_tree of {directory}", _OPEN_TREE, _AT_FDCWD, directory, flags)

    def prctl(self, option: int, argument: int = 0) -> int:
        answer = int(self._libc.prctl(option, argument, 0, 0, 0))
        if answer < 0:
            raise _refused(f"prctl({option}, {argument})")
        return answer

    def drop_capabilities(self) -> None:
        machine = platform.machine()
        if machine not in _SYS_CAPSET:
            raise MountError(
                f"capset(2) has no known number on {machine}", hint="add it to csi/handover/kernel.py for this machine"
            )
        header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
        nothing = (_CapabilityData * 2)()
        number = ctypes.c_long(_SYS_CAPSET[machine])
        if self._libc.syscall(number, ctypes.byref(header), ctypes.byref(nothing)) != 0:
            raise _refused("capset to no capabilities")

    def write_control(self, path: str, value: str) -> None:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(descriptor, value.encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            raise mount_error(f"write of {value!r} to {path}", error.errno or 0) from error

    def _call(self, what: str, number: int, *arguments: int | str) -> int:
        """A system call that libc may have no name for."""
        given = (ctypes.c_long(a) if isinstance(a, int) else ctypes.c_char_p(os.fsencode(a)) for a in arguments)
        answer = int(self._libc.syscall(ctypes.c_long(number), *given))
        if answer < 0:
            raise _refused(what)
        return answer


_HINTS: Final = {
    errno.EPERM: "the node plugin needs CAP_SYS_ADMIN: run it as root (in Kubernetes: privileged)",
    errno.EACCES: "the node plugin needs root; a security module (SELinux, AppArmor) or a device cgroup may refuse it",
    errno.ENOENT: "check that the path exists; for /dev/fuse load the fuse module (modprobe fuse) or add the device",
    errno.ENODEV: "the kernel has no FUSE: load the fuse module (modprobe fuse)",
    errno.ENXIO: "the kernel has no FUSE: load the fuse module (modprobe fuse)",
    errno.EBUSY: "something still uses it: look with fuser -vm or lsof",
    errno.ENOMEM: "the node is out of memory",
    errno.EMFILE: "the node plugin has too many open files: raise its limit (ulimit -n)",
    errno.ENFILE: "the node has too many open files: raise fs.file-max",
    errno.ENOSPC: "the node has too many mounts: raise fs.mount-max",
    errno.ENOTDIR: "the target must be a directory",
    errno.EROFS: "the file system below it is read-only",
    errno.ENOTCONN: "what is mounted there is dead: unmount it first (umount -l)",
}


def mount_error(what: str, number: int) -> MountError:
    """A MountError for `what` having failed with errno `number`, with the hint that fits."""
    name = errno.errorcode.get(number, str(number))
    hint = _HINTS.get(number, "")
    return MountError(f"{what} failed: {os.strerror(number)} ({name})", errno=number, hint=hint)


def _refused(what: str) -> MountError:
    return mount_error(what, ctypes.get_errno())
