"""`python -m tests.support.unreadable_blocks WAY`: READs of bytes that lie on pages nobody can read, answered from the
tables, from two of their blocks, by Python at once, or by Python after a call that may wait.

The session is asked before the pages are closed, and after: says how many bytes came, and with which errno it failed.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import sys
import threading

from csi.fuse.native.answers import Answers
from csi.fuse.own.session import OwnSession
from csi.fuse.protocol.constants import Opcode
from csi.oss.store import Buffer
from csi.volume.spec import MountArguments
from csi.volume.units import Bytes, FileHandle, Seconds
from tests.support.kernel_end import KernelEnd, read_body
from tests.support.tree_filesystem import TreeFilesystem

SIZE = 2 * mmap.PAGESIZE
HANDLE = FileHandle(9)
_NOTHING = 0
"""PROT_NONE."""


class Bare(TreeFilesystem):
    """A filesystem that has the bytes, `ready` as one that reads ahead."""

    def __init__(self, block: Buffer, *, ready: bool) -> None:
        super().__init__()
        self._block = block
        self._ready = ready

    def read_ready(self, handle: FileHandle, offset: int, size: int) -> Buffer | None:
        return self._block if self._ready else None

    def read(self, handle: FileHandle, offset: int, size: int, for_pages: bool = True) -> Buffer:
        return self._block


def main() -> None:
    way = sys.argv[1]
    pages = mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    block = memoryview(pages).toreadonly()
    kernel, answers = KernelEnd(), Answers()
    if way == "tables":
        answers.publish_block(1, 0, block)
    elif way == "two blocks":
        answers.publish_block(1, 0, bytes(SIZE // 2))
        answers.publish_block(1, SIZE // 2, block[SIZE // 2 :])
    if not way.startswith("python"):
        answers.publish_file(HANDLE, 1, Bytes(SIZE))
    session = OwnSession(
        *(kernel.descriptor, Bare(block, ready=way == "python"), MountArguments()),
        answers=answers,
        workers=2,
        on_started=lambda: None,
        stop_grace=Seconds(5.0),
    )
    serving = threading.Thread(target=session.serve)
    serving.start()
    kernel.init()

    before = kernel.ask(Opcode.READ, read_body(HANDLE, 0, SIZE))
    close(pages)
    after = kernel.ask(Opcode.READ, read_body(HANDLE, 0, SIZE))

    session.stop()
    serving.join()
    print(json.dumps({"readable": len(before.body), "unreadable": after.error}))


def close(pages: mmap.mmap) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    start = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    if library.mprotect(ctypes.c_void_p(start), ctypes.c_size_t(len(pages)), _NOTHING):
        raise OSError(ctypes.get_errno(), "mprotect")


if __name__ == "__main__":
    main()
