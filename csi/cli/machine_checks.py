"""The checks of `ossfuse doctor` that concern this machine: kernel, /dev/fuse, cgroups, rights, libraries.

Everything is read below `Machine.root`, so that tests can show any machine to the checks. Nothing is changed, and no
mounted filesystem is touched.
"""

from __future__ import annotations

import ctypes.util
import enum
import os
import platform
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from csi.errors import MountError
from csi.handover.cgroup import memory_hierarchy
from csi.handover.mountinfo import MountEntry, parse_mountinfo

_CAP_SYS_ADMIN = 21
_LEAST_KERNEL = (4, 18)
_GOOD_KERNEL = (5, 4)
_RESEND_KERNEL = (6, 9)


class Level(enum.Enum):
    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found; `fix` is what to do, '' when nothing."""

    check: str
    level: Level
    found: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """What the checks look at: files below `root`, the kernel's release, and how a shared library is found."""

    root: Path
    release: str = field(default_factory=platform.release)
    find_library: Callable[[str], str | None] = ctypes.util.find_library

    def read(self, path: str) -> str:
        """The text of `path`, '' when it cannot be read."""
        try:
            return (self.root / path.lstrip("/")).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def mounts(self) -> list[MountEntry]:
        return parse_mountinfo(self.read("/proc/self/mountinfo").encode())


def check_machine(machine: Machine) -> list[Finding]:
    """Every check, in the order in which a mount would need what they look at."""
    checks = (_kernel, _fuse_device, _fuse_filesystem, _rights, _memory_cgroup, _fusectl, _libfuse)
    return [check(machine) for check in checks]


def _kernel(machine: Machine) -> Finding:
    match = re.match(r"(\d+)\.(\d+)", machine.release)
    version = (int(match[1]), int(match[2])) if match else (0, 0)
    name = f"Linux {machine.release}"
    if version < _LEAST_KERNEL:
        return Finding("kernel", Level.FAIL, name, "use Linux 5.4 or newer")
    if version < _GOOD_KERNEL:
        return Finding("kernel", Level.WARN, name, "works with fewer FUSE features; Linux 5.4 or newer is better")
    resend = "can" if version >= _RESEND_KERNEL else "cannot"
    return Finding("kernel", Level.OK, f"{name}; {resend} resend requests to a restarted sidecar (6.9)")


def _fuse_device(machine: Machine) -> Finding:
    path = machine.root / "dev/fuse"
    try:
        mode = path.stat().st_mode
    except OSError:
        return Finding(
            "/dev/fuse", Level.FAIL, "missing", "modprobe fuse; in a container: give it the device /dev/fuse"
        )
    if not stat.S_ISCHR(mode):
        return Finding("/dev/fuse", Level.FAIL, "not a device", "rm /dev/fuse; mknod /dev/fuse c 10 229")
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return Finding(
            "/dev/fuse", Level.FAIL, f"cannot be opened: {error.strerror}", "run as root, and allow the device 10:229"
        )
    return Finding("/dev/fuse", Level.OK, "can be opened")


def _fuse_filesystem(machine: Machine) -> Finding:
    names = {line.split()[-1] for line in machine.read("/proc/filesystems").splitlines() if line.split()}
    if "fuse" in names:
        return Finding("FUSE", Level.OK, "the kernel has the filesystem fuse")
    return Finding("FUSE", Level.FAIL, "the kernel has no filesystem fuse", "modprobe fuse, and load it at boot")


def _rights(machine: Machine) -> Finding:
    status = machine.read("/proc/self/status")
    match = re.search(r"^CapEff:\s*([0-9a-fA-F]+)$", status, re.MULTILINE)
    effective = int(match[1], 16) if match else 0
    uid = re.search(r"^Uid:\s*\d+\s+(\d+)", status, re.MULTILINE)
    who = f"uid {uid[1]}" if uid else "unknown uid"
    if effective >> _CAP_SYS_ADMIN & 1:
        return Finding("rights", Level.OK, f"{who} with CAP_SYS_ADMIN")
    return Finding("rights", Level.FAIL, f"{who} without CAP_SYS_ADMIN", "run as root (sudo), or in a privileged pod")


def _memory_cgroup(machine: Machine) -> Finding:
    try:
        hierarchy = memory_hierarchy(machine.mounts(), machine.read("/proc/self/cgroup"))
    except MountError as error:
        return Finding("memory cgroup", Level.FAIL, error.message, error.hint)
    found = f"version {hierarchy.version} at {hierarchy.mount}"
    options = next(
        (entry.options for entry in machine.mounts() if entry.target == str(hierarchy.mount)),
        (),
    )
    if "ro" in options:
        return Finding("memory cgroup", Level.FAIL, f"{found}, read-only", "mount it writable: run privileged")
    return Finding("memory cgroup", Level.OK, found)


def _fusectl(machine: Machine) -> Finding:
    entries = machine.mounts()
    if any(entry.fstype == "fusectl" for entry in entries):
        return Finding("fusectl", Level.OK, "mounted: hung mounts can be aborted")
    return Finding(
        "fusectl",
        Level.WARN,
        "not mounted; it is mounted privately when needed",
        "mount -t fusectl fusectl /sys/fs/fuse/connections",
    )


def _libfuse(machine: Machine) -> Finding:
    name = machine.find_library("fuse3")
    if name:
        return Finding("libfuse", Level.OK, name)
    return Finding("libfuse", Level.FAIL, "libfuse3 is not installed", "apt-get install libfuse3-3 (or fuse3)")
