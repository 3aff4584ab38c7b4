"""opendir(3) and friends, which Python does not have: positions in a directory."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path


class _Dirent(ctypes.Structure):
    _fields_ = (
        ("d_ino", ctypes.c_ulong),
        ("d_off", ctypes.c_long),
        ("d_reclen", ctypes.c_ushort),
        ("d_type", ctypes.c_ubyte),
        ("d_name", ctypes.c_char * 256),
    )


class Directory:
    def __init__(self, path: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.opendir.restype = ctypes.c_void_p
        libc.readdir.restype = ctypes.POINTER(_Dirent)
        libc.telldir.restype = ctypes.c_long
        self._libc = libc
        self._stream = ctypes.c_void_p(libc.opendir(os.fsencode(path)))
        if not self._stream.value:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))

    def names(self, count: int = 1 << 30) -> list[bytes]:
        """Up to `count` names from the current position."""
        found: list[bytes] = []
        while len(found) < count and (entry := self._libc.readdir(self._stream)):
            found.append(entry.contents.d_name)
        return found

    def tell(self) -> int:
        return int(self._libc.telldir(self._stream))

    def seek(self, position: int) -> None:
        self._libc.seekdir(self._stream, ctypes.c_long(position))

    def rewind(self) -> None:
        self._libc.rewinddir(self._stream)

    def close(self) -> None:
        self._libc.closedir(self._stream)


def names_by_every_way(path: Path, count: int) -> tuple[list[bytes], list[bytes], list[bytes], list[bytes]]:
    """The first `count` names; those after them; these again after seekdir(3); all of them after rewinddir(3)."""
    directory = Directory(path)
    try:
        first = directory.names(count)
        position = directory.tell()
        rest = directory.names()
        directory.seek(position)
        again = directory.names()
        directory.rewind()
        return first, rest, again, directory.names()
    finally:
        directory.close()
