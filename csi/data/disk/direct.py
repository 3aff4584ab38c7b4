"""Long runs of bytes written and read past the kernel's page cache.

It takes a twentieth of the CPU and leaves no dirty pages, for which a sidecar's cgroup would be held up; and the pages
of the program that reads hold the same bytes anyway. Where the file system, the disk or the memory does not allow it,
nothing is done and the caller goes the ordinary way.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from csi.data.disk.files import Files
from csi.volume.units import KIB, MIB

LONG = 1 * MIB
"""From this size on it is of use."""
_PAGE = 4 * KIB


class DirectIo:
    """Of the files below `root`, a descriptor. Raises OSError for what is not a mere refusal."""

    def __init__(self, root: int, files: Files) -> None:
        self._root = root
        self._files = files

    def read(self, path: str, target: memoryview, offset: int) -> int:
        """How many bytes were put into the beginning of `target`: all whole pages of it, or none."""

        def read(descriptor: int, pages: memoryview) -> bool:
            return self._files.read(descriptor, [pages], offset) == len(pages)

        return self._try(path, os.O_RDONLY, target, read)

    def write(self, path: str, data: memoryview, offset: int) -> int:
        """How many bytes of `data` were written: all whole pages of it, or none."""

        def write(descriptor: int, pages: memoryview) -> bool:
            self._files.write(descriptor, [pages], offset)
            return True

        return self._try(path, os.O_WRONLY, data, write)

    def _try(self, path: str, flags: int, data: memoryview, work: Callable[[int, memoryview], bool]) -> int:
        pages = data[: len(data) - len(data) % _PAGE]
        if len(pages) < LONG:
            return 0
        descriptor = self._files.open_direct(self._root, path, flags)
        if descriptor is None:
            return 0
        try:
            return len(pages) if work(descriptor, pages) else 0
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return 0  # the memory is not aligned as the disk wants it
        finally:
            self._files.close(descriptor)
