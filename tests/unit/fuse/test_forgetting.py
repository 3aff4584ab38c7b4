"""What the kernel is told to forget, as it understands it: csi/fuse/forgetting.py."""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence

from csi.fs.types import KnownName
from csi.fuse.forgetting import Forgetting
from csi.fuse.protocol.constants import Notification
from csi.volume.units import Seconds

FILE, DIRECTORY = KnownName(1, b"file", 11, False), KnownName(1, b"directory", 12, True)
PRUNE_OF_BOTH = struct.pack("<IiQ IIQ QQ", 16 + 16 + 16, Notification.PRUNE, 0, 2, 0, 0, 11, 12)
FILE_IS_GONE = struct.pack("<IiQ QII", 16 + 16 + 5, Notification.INVAL_ENTRY, 0, 1, 4, 0) + b"file\0"


class Kernel:
    def __init__(self, **refused: int) -> None:
        self.refused = refused
        self.told: list[bytes] = []

    def notify(self, message: bytes) -> int:
        self.told.append(message)
        return self.refused.get(Notification(struct.unpack_from("<i", message, 4)[0]).name, 0)


def test_a_kernel_that_can_is_asked_to_forget_inodes() -> None:
    kernel = Kernel()
    forgetting = Forgetting(kernel)
    forgetting.ask([FILE, DIRECTORY])
    forgetting.ask([])
    assert kernel.told == [PRUNE_OF_BOTH]


def test_an_older_one_is_told_that_names_of_files_are_invalid_and_not_asked_again() -> None:
    kernel = Kernel(PRUNE=errno.EINVAL, INVAL_ENTRY=errno.ENOENT)
    forgetting = Forgetting(kernel)
    forgetting.ask([FILE, DIRECTORY])
    forgetting.ask([DIRECTORY, FILE])
    assert kernel.told == [PRUNE_OF_BOTH, FILE_IS_GONE, FILE_IS_GONE]


def test_a_mount_that_is_gone_is_no_older_kernel() -> None:
    kernel = Kernel(PRUNE=errno.ENODEV)
    Forgetting(kernel).ask([FILE, DIRECTORY])
    assert kernel.told == [PRUNE_OF_BOTH]


def test_it_goes_on_until_all_is_over() -> None:
    class Full:
        def surplus(self, within: Seconds) -> Sequence[KnownName]:
            return [FILE, DIRECTORY]

    kernel = Kernel()
    Forgetting(kernel).run(Full(), lambda: len(kernel.told) == 3)
    assert kernel.told == 3 * [PRUNE_OF_BOTH]
