"""A Kernel with a mount table in memory, and one that fails at a chosen call: for tests of what is done about it."""

from __future__ import annotations

import errno
import threading
from collections import Counter

from csi.handover.kernel import MNT_DETACH, LinuxKernel, mount_error
from csi.handover.mountinfo import MountEntry


class FakeKernel:
    """Keeps `table` as the kernel would; `refuse` maps a call's name to the errno it fails with (once per entry)."""

    def __init__(self) -> None:
        self.table: list[MountEntry] = [entry_at("/", "ext4", "/dev/vda", 1, 0)]
        self.calls: list[tuple[str, str]] = []
        self.refuse: dict[str, list[int]] = {}
        self.busy: set[str] = set()
        self.hung: dict[str, threading.Event] = {}
        self.controls: list[tuple[str, str]] = []
        self._serial = 100

    def entries(self) -> list[MountEntry]:
        return list(self.table)

    def mount(self, source: str, target: str, fstype: str, flags: int, data: str) -> None:
        self._enter("mount", target)
        self._serial += 1
        parent = next((entry.mount_id for entry in reversed(self.table) if entry.target == target), 1)
        self.table.append(entry_at(target, fstype, source, self._serial, parent, read_only=bool(flags & 1)))

    def mount_beneath(self, source: str, target: str, fstype: str, flags: int, data: str) -> None:
        self._enter("mount_beneath", target)
        raise mount_error("fsopen", errno.ENOSYS)

    def umount2(self, target: str, flags: int) -> None:
        self._enter("umount2", target)
        if not flags & MNT_DETACH:
            if target in self.hung:
                self.hung[target].wait(30)
            if target in self.busy:
                raise mount_error(f"umount of {target}", errno.EBUSY)
        for entry in reversed(self.table):
            if entry.target == target:
                self.table.remove(entry)
                return
        raise mount_error(f"umount of {target}", errno.EINVAL)

    def open_fuse_device(self) -> int:
        self._enter("open_fuse_device", "")
        return -1

    def clone_tree(self, directory: str) -> int:
        self._enter("clone_tree", directory)
        raise mount_error("open_tree", errno.ENOSYS)

    def prctl(self, option: int, argument: int = 0) -> int:
        self._enter("prctl", str(option))
        return 0

    def drop_capabilities(self) -> None:
        self._enter("drop_capabilities", "")

    def write_control(self, path: str, value: str) -> None:
        self._enter("write_control", path)
        self.controls.append((path, value))

    def _enter(self, call: str, subject: str) -> None:
        self.calls.append((call, subject))
        if self.refuse.get(call):
            raise mount_error(call, self.refuse[call].pop(0))


class FailingKernel(LinuxKernel):
    """The real kernel, except that call number `nth` (from 1) of `name` fails with `number`."""

    def __init__(self, name: str, nth: int = 1, number: int = errno.EPERM) -> None:
        super().__init__()
        self._name = name
        self._nth = nth
        self._number = number
        self.seen: Counter[str] = Counter()

    def mount(self, source: str, target: str, fstype: str, flags: int, data: str) -> None:
        self._enter(f"mount {fstype}")
        super().mount(source, target, fstype, flags, data)

    def mount_beneath(self, source: str, target: str, fstype: str, flags: int, data: str) -> None:
        self._enter("mount_beneath")
        super().mount_beneath(source, target, fstype, flags, data)

    def umount2(self, target: str, flags: int) -> None:
        self._enter("umount2")
        super().umount2(target, flags)

    def open_fuse_device(self) -> int:
        self._enter("open_fuse_device")
        return super().open_fuse_device()

    def clone_tree(self, directory: str) -> int:
        self._enter("clone_tree")
        return super().clone_tree(directory)

    def write_control(self, path: str, value: str) -> None:
        self._enter("write_control")
        super().write_control(path, value)

    def _enter(self, call: str) -> None:
        self.seen[call] += 1
        if call == self._name and self.seen[call] == self._nth:
            raise mount_error(call, self._number)


def entry_at(
    target: str, fstype: str, source: str, mount_id: int, parent_id: int, *, read_only: bool = False
) -> MountEntry:
    options = ("ro",) if read_only else ("rw",)
    return MountEntry(mount_id, parent_id, 0, mount_id, "/", target, options, (), fstype, source, options)
