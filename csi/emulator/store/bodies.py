"""Object bodies as files: written once, named by a random id, unlinked when nothing uses them.

A body that is being sent is pinned, so replacing or deleting the object never pulls the file from under a transfer.
Only an appendable object's file grows, and only past the size its readers know. Blocking: run on a worker thread where
it moves many bytes. It must not know objects or HTTP.

Locks: `_lock` guards `_pins` and `_doomed`; no file work is done while holding it.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import threading
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fastcrc.crc64 import xz as crc64

_COPY_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Piece:
    """`count` bytes at `offset` of one body file."""

    file: str
    offset: int
    count: int


class Bodies:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._pins: Counter[str] = Counter()
        self._doomed: set[str] = set()
        for number in range(256):
            (root / f"{number:02x}").mkdir(parents=True, exist_ok=True)

    def path(self, file: str) -> Path:
        return self._root / file[:2] / file[2:]

    def new_id(self) -> str:
        return uuid.uuid4().hex

    def create(self) -> tuple[str, BinaryIO]:
        """A new empty file, open for writing."""
        file = self.new_id()
        return file, open(self.path(file), "xb", buffering=0)

    def clone(self, file: str) -> str:
        """A second name for a finished body (a hard link; a copy where the file system allows no more links)."""
        twin = self.new_id()
        try:
            os.link(self.path(file), self.path(twin))
        except OSError as error:
            if error.errno not in (errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV):
                raise
            return self.copy([Piece(file, 0, self.path(file).stat().st_size)]).file
        return twin

    def copy(self, pieces: Iterable[Piece]) -> Written:
        """The bytes of `pieces` in a file of their own, with their checksums."""
        writer = BodyWriter(self)
        try:
            for piece in pieces:
                with open(self.path(piece.file), "rb", buffering=0) as source:
                    position, end = piece.offset, piece.offset + piece.count
                    while position < end:
                        data = os.pread(source.fileno(), min(_COPY_CHUNK, end - position), position)
                        _check_not_ended(data, piece, position)
                        writer.write(data)
                        position += len(data)
        except BaseException:
            writer.discard()
            raise
        return writer.finish()

    def adopt(self, path: Path, *, with_md5: bool) -> Written:
        """A finished file as a body, by a second name for it (same file system); without MD5, its CRC and size stand in
        for that in the ETag."""
        file = self.new_id()
        os.link(path, self.path(file))
        size = path.stat().st_size
        if not size:
            return Written(0, hashlib.md5(usedforsecurity=False).digest(), 0, file)
        with open(path, "rb") as source, mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as whole:
            crc = crc64(whole)
            digest = hashlib.md5(whole, usedforsecurity=False).digest() if with_md5 else b""
        return Written(size, digest or crc.to_bytes(8, "big") + size.to_bytes(8, "big"), crc, file)

    def write(self, data: bytes) -> Written:
        """`data` as a body file of its own."""
        writer = BodyWriter(self)
        try:
            writer.write(data)
        except BaseException:
            writer.discard()
            raise
        return writer.finish()

    def append(self, file: str, position: int, data: bytes | str) -> None:
        """Write `data` (bytes, or the id of another body) at `position`, the length its readers know."""
        descriptor = os.open(self.path(file), os.O_WRONLY)
        try:
            if isinstance(data, bytes):
                _write_at(descriptor, data, position)
                return
            source = os.open(self.path(data), os.O_RDONLY)
            try:
                os.lseek(descriptor, position, os.SEEK_SET)
                while os.copy_file_range(source, descriptor, 1 << 30):
                    pass
            finally:
                os.close(source)
        finally:
            os.close(descriptor)

    def pin(self, files: Iterable[str]) -> None:
        with self._lock:
            self._pins.update(files)

    def unpin(self, files: Iterable[str]) -> None:
        with self._lock:
            gone = []
            for file in files:
                self._pins[file] -= 1
                if self._pins[file] <= 0:
                    del self._pins[file]
                    if file in self._doomed:
                        self._doomed.remove(file)
                        gone.append(file)
        for file in gone:
            self.path(file).unlink(missing_ok=True)

    def remove(self, files: Iterable[str]) -> None:
        """Unlink bodies nothing names any more, those being sent once they are not."""
        with self._lock:
            now = []
            for file in files:
                if self._pins.get(file):
                    self._doomed.add(file)
                else:
                    now.append(file)
        for file in now:
            self.path(file).unlink(missing_ok=True)

    def sweep(self, in_use: set[str]) -> int:
        """Remove what a killed server left half done; returns how many files."""
        removed = 0
        for directory in self._root.iterdir():
            for entry in os.scandir(directory):
                if directory.name + entry.name not in in_use:
                    os.unlink(entry.path)
                    removed += 1
        return removed


@dataclass(frozen=True, slots=True)
class Written:
    """A finished body: its bytes in `data` or in `file`, its MD5 (binary) and CRC64."""

    size: int
    md5: bytes
    crc: int
    file: str = ""
    data: bytes = b""

    @property
    def etag(self) -> str:
        return self.md5.hex().upper()


class BodyWriter:
    """Writes one body and computes MD5 and CRC64 on the way. Used by one thread at a time.

    Bodies of at most `keep_in_memory` bytes never become a file.
    """

    def __init__(self, bodies: Bodies, keep_in_memory: int = -1) -> None:
        self._bodies = bodies
        self._keep = keep_in_memory
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._crc = 0
        self._size = 0
        self._held: list[bytes] = []
        self._file = ""
        self._target: BinaryIO | None = None

    def write(self, data: bytes) -> None:
        self._md5.update(data)
        self._crc = crc64(data, self._crc)
        self._size += len(data)
        if self._target is None and self._size <= self._keep:
            self._held.append(data)
        else:
            _write_out(self._target or self._open(), data)

    def finish(self) -> Written:
        if self._target is None and self._size > self._keep:
            self._open()
        if self._target is not None:
            self._target.close()
        return Written(self._size, self._md5.digest(), self._crc, self._file, b"".join(self._held))

    def discard(self) -> None:
        if self._target is not None:
            self._target.close()
            self._bodies.path(self._file).unlink(missing_ok=True)

    def _open(self) -> BinaryIO:
        self._file, self._target = self._bodies.create()
        held, self._held = self._held, []
        for data in held:
            _write_out(self._target, data)
        return self._target


def _write_out(target: BinaryIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[target.write(rest) :]


def _check_not_ended(data: bytes, piece: Piece, position: int) -> None:
    if not data:
        raise OSError(errno.EIO, f"body {piece.file} ends at {position}, expected {piece.offset + piece.count}")


def _write_at(descriptor: int, data: bytes, position: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(descriptor, rest, position)
        rest = rest[written:]
        position += written
