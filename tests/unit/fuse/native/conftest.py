"""Tables served by device threads to a fake kernel; what they cannot answer is kept, and answered ENOTRECOVERABLE."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator

import pytest

from csi.fs.types import Attributes, FileKind
from csi.fuse.native.answers import Answers
from csi.fuse.native.device import Device
from csi.fuse.protocol.bodies import Forget, Request
from csi.fuse.protocol.messages import decode
from csi.volume.units import InodeNumber, Seconds
from tests.support.kernel_end import KernelEnd

LONG = Seconds(60.0)
PYTHON = errno.ENOTRECOVERABLE
"""The answer to what came to Python."""


class Tables:
    def __init__(self, threads: int = 2, capacity: int = 1 << 18) -> None:
        self.kernel = KernelEnd()
        self.answers = Answers(capacity)
        self.device = Device(self.kernel.descriptor, self.answers, 1 << 20, threads + 2)
        self.brought: list[Request] = []
        self.came = threading.Semaphore(0)
        self.threads = [threading.Thread(target=self.device.run, args=(self.handle,)) for _ in range(threads)]
        self.threads.append(threading.Thread(target=self.device.watch))
        for thread in self.threads:
            thread.start()

    def handle(self, message: memoryview) -> None:
        request = decode(message)
        self.brought.append(request)
        if not isinstance(request.body, Forget):
            self.device.reply(request.header.unique, PYTHON)
        self.came.release()

    def close(self) -> None:
        self.device.stop()
        for thread in self.threads:
            while thread.is_alive():
                self.device.interrupt()
                thread.join(0.01)
        self.device.close(Seconds(1.0))
        self.kernel.unmount()

    def add_file(self, name: bytes, inode: int, size: int = 0) -> None:
        self.answers.publish_inode(attributes(inode, size), believed=LONG, told=LONG)
        self.answers.publish_name(InodeNumber(1), name, InodeNumber(inode), believed=LONG, told=LONG)


@pytest.fixture
def tables() -> Iterator[Tables]:
    made = Tables()
    yield made
    made.close()


def attributes(inode: int, size: int = 0) -> Attributes:
    return Attributes(InodeNumber(inode), FileKind.FILE, 0o100644, 1, 0, 0, size, 1, 2, 3)
