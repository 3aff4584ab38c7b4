"""How one object version lies on the disk, and how its bytes are read so that only whole ones are believed.

A small object is one file: its bytes, then a magic word and their CRC64. It appears by link(2), so it is whole or not
there. A larger one is a sparse file that is exactly the object, as far as it is filled, and beside it a map: for every
unit of 128 KiB the CRC64 of its bytes, 0 while they are not there. The unit is written first and its CRC afterwards; so
what a crash of the process leaves is whole, and what a crash of the machine leaves is found out by the CRC. Nothing
that is there is ever written again: what turns out wrong is removed.

Knows no limits and no other entries; raises OSError.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from struct import Struct, unpack_from

from csi.data.disk.direct import DirectIo
from csi.data.disk.files import Files
from csi.data.disk.naming import MAP, TEMPORARY, EntryName
from csi.data.shelves import UNIT
from csi.oss.checksum import EMPTY, update
from csi.volume.units import KIB, MIB, Seconds

SMALL = 1 * MIB
"""Objects up to this size are one file."""

_PAGE = 4 * KIB
_SECTOR = 512
_TRAILER = Struct("<8sQ")
_MAGIC = b"ossfuse1"
_CHECKSUM = Struct("<Q")
_FRESH = Seconds(600.0)
"""How long a use of an entry need not be noted again."""
Scratch = Callable[[int], memoryview | None]
"""So many bytes of memory, charged to somebody, until the view is gone; None: there is none."""


State = tuple[int, int, int]
"""Inode numbers are used again, so the time at which the map was last written is part of it."""


class Corrupt(Exception):
    """What is on the disk is not what was written."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A part of an offer that is not there yet: `data` belongs at `start`."""

    start: int
    data: memoryview


def charge_of(path: str, status: os.stat_result) -> int:
    """Bytes of the disk that a file takes. A map counts as if it were full, so that filling it costs nothing more."""
    return _pages(status.st_size) if path.endswith(MAP) else status.st_blocks * _SECTOR


def cost_of(size: int, runs: list[Missing]) -> int:
    """Bytes of the disk that keeping `runs` of an object takes at most."""
    if size <= SMALL:
        return _pages(size + _TRAILER.size)
    return _map_pages(size) + sum(_pages(len(run.data)) for run in runs)


def storable(size: int, start: int, data: memoryview) -> Missing | None:
    """What of an offer can be kept: all of a small object, whole units of a large one."""
    end = start + len(data)
    if size <= SMALL:
        return Missing(0, data) if start == 0 and end == size and size > 0 else None
    first = start + -start % UNIT
    last = end if end == size else end - end % UNIT
    return Missing(first, data[first - start : last - start]) if first < last else None


class Entries:
    """The entries below `root`, a descriptor of a directory with the shards. Safe from any thread and any process: it
    has no state but a counter."""

    def __init__(self, root: int, files: Files, *, wall: Callable[[], float]) -> None:
        self._root = root
        self._files = files
        self._wall = wall
        self._direct = DirectIo(root, files)
        self._token = os.urandom(6).hex()  # process ids are not unique among containers
        self._serial = itertools.count()

    # --- reading ---

    def read(self, name: EntryName, size: int, start: int, target: memoryview, scratch: Scratch) -> int:
        """How many bytes from the beginning of `target` were read and are whole. Raises Corrupt when some are not;
        those before them may have been put into `target`."""
        try:
            if size <= SMALL:
                return self._read_small(name, size, start, target, scratch)
            return self._read_units(name, size, start, target, scratch)
        except FileNotFoundError:
            return 0

    def _read_small(self, name: EntryName, size: int, start: int, target: memoryview, scratch: Scratch) -> int:
        descriptor = self._files.open(self._root, name.path, os.O_RDONLY)
        try:
            everything = start == 0 and len(target) == size
            data = target if everything else scratch(size)
            if data is None:
                return 0
            trailer = bytearray(_TRAILER.size)
            got = self._files.read(descriptor, [data, trailer], 0)
            if got != size + _TRAILER.size or _TRAILER.unpack(trailer) != (_MAGIC, update(EMPTY, data)):
                raise Corrupt
            if not everything:
                target[:] = data[start : start + len(target)]
            self._note_use(descriptor)
            return len(target)
        finally:
            self._files.close(descriptor)

    def _read_units(self, name: EntryName, size: int, start: int, target: memoryview, scratch: Scratch) -> int:
        end = start + len(target)
        checksums = self._checksums(name, start // UNIT, _units(end))
        there = list(itertools.takewhile(bool, checksums))
        if not there:
            return 0
        first = start - start % UNIT
        last = min(first + len(there) * UNIT, size)
        aligned = first == start and last <= end
        data = target[: last - start] if aligned else scratch(last - first)
        if data is None:
            return 0
        descriptor = self._files.open(self._root, name.path, os.O_RDONLY)
        try:
            self._fill(name, descriptor, data, first)
            _compare(data, there)
            self._note_use(descriptor)
        except Corrupt:
            if self._checksums(name, start // UNIT, _units(end)) == checksums:
                raise
            return 0  # another process has removed the entry meanwhile, and perhaps made it anew
        finally:
            self._files.close(descriptor)
        have = min(end, last) - start
        if not aligned:
            target[:have] = data[start - first : start - first + have]
        return have

    def _fill(self, name: EntryName, descriptor: int, data: memoryview, first: int) -> None:
        """Raises Corrupt when the file ends before."""
        passed = self._direct.read(name.path, data, first)
        if passed < len(data):
            self._files.read_nothing_else(descriptor)  # what follows is perhaps being written
            if self._files.read(descriptor, [data[passed:]], first + passed) != len(data) - passed:
                raise Corrupt

    def _checksums(self, name: EntryName, first: int, last: int) -> tuple[int, ...]:
        descriptor = self._files.open(self._root, name.map_path, os.O_RDONLY)
        try:
            found = bytearray((last - first) * _CHECKSUM.size)
            got = self._files.read(descriptor, [found], first * _CHECKSUM.size)
        finally:
            self._files.close(descriptor)
        return unpack_from(f"<{got // _CHECKSUM.size}Q", found)

    # --- all of an entry ---

    def open_file(self, name: EntryName, size: int) -> tuple[int, State] | None:
        """A descriptor of the file of a large object, to read only, however much of it is there, and what tells this
        state of it from every other; None: no such entry."""
        if size <= SMALL:
            return None
        try:
            map_file = self._files.open(self._root, name.map_path, os.O_RDONLY)
            try:
                written = self._files.status(map_file)
                descriptor = self._files.open(self._root, name.path, os.O_RDONLY)
            finally:
                self._files.close(map_file)
        except FileNotFoundError:
            return None
        status = self._files.status(descriptor)
        if status.st_size != size:
            self._files.close(descriptor)
            return None
        self._note_use(descriptor)
        return descriptor, (status.st_ino, written.st_ino, written.st_mtime_ns)

    def check_piece(self, name: EntryName, size: int, start: int, descriptor: int, data: memoryview) -> bool:
        """Look at the bytes of an open file from `start`, a multiple of UNIT, by way of `data`: False if some are not
        there. Raises Corrupt when some are wrong."""
        end = start + len(data)
        try:
            checksums = self._checksums(name, start // UNIT, _units(end))
        except FileNotFoundError:
            return False
        if len(checksums) * UNIT < len(data) or not all(checksums):
            return False
        if self._files.read(descriptor, [data], start) != len(data):
            raise Corrupt
        _compare(data, checksums)
        return True

    # --- writing, by one thread ---

    def missing(self, name: EntryName, size: int, offered: Missing) -> list[Missing]:
        """What of `offered` is not there yet, in runs of units."""
        if size <= SMALL:
            return [] if self._exists(name.path) else [offered]
        first = offered.start // UNIT
        count = _units(len(offered.data))
        try:
            checksums = self._checksums(name, first, first + count)
        except FileNotFoundError:
            return [offered]
        there = [bool(checksum) for checksum in checksums] + [False] * (count - len(checksums))
        runs = []
        number = 0
        for present, group in itertools.groupby(there):
            begin, number = number, number + len(list(group))
            if not present:
                runs.append(Missing(offered.start + begin * UNIT, offered.data[begin * UNIT : number * UNIT]))
        return runs

    def write(self, name: EntryName, size: int, runs: list[Missing]) -> int:
        """Keep `runs`; how many bytes of their `cost_of` were not needed, because other processes did the same or have
        removed the entry meanwhile."""
        if size <= SMALL:
            return 0 if self._write_small(name, runs[0].data) else cost_of(size, runs)
        return self._write_units(name, size, runs)

    def remove(self, name: EntryName) -> bool:
        """The map first: bytes without a map are not there. False: another process removed the entry before."""
        mapped = self._files.remove(self._root, name.map_path)
        return self._files.remove(self._root, name.path) or mapped

    def _write_small(self, name: EntryName, data: memoryview) -> bool:
        """False: it is there already."""
        temporary = f"{name.path}.{self._token}-{next(self._serial)}{TEMPORARY}"
        descriptor = self._files.open(self._root, temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            try:
                self._files.write(descriptor, [data, _TRAILER.pack(_MAGIC, update(EMPTY, data))], 0)
            finally:
                self._files.close(descriptor)
            return self._files.link(self._root, temporary, name.path)
        finally:
            self._files.remove(self._root, temporary)

    def _write_units(self, name: EntryName, size: int, runs: list[Missing]) -> int:
        data_file, made = self._open_sized(name.path, size)
        try:
            if made:  # whatever map there is belongs to a file that was removed
                self._files.remove(self._root, name.map_path)
            map_file, map_made = self._open_sized(name.map_path, _units(size) * _CHECKSUM.size)
            try:
                unused = 0 if map_made else _map_pages(size)
                for run in runs:
                    passed = self._direct.write(name.path, run.data, run.start)
                    self._files.write(data_file, [run.data[passed:]], run.start + passed)
                    unused += self._mark(name, map_file, run)
                linked = self._files.status(data_file).st_nlink and self._files.status(map_file).st_nlink
                return unused if linked else cost_of(size, runs)
            finally:
                self._files.close(map_file)
        finally:
            self._files.close(data_file)

    def _mark(self, name: EntryName, map_file: int, run: Missing) -> int:
        """The units of `run` are there from now on; how many bytes of them somebody else has marked before."""
        first = run.start // UNIT
        units = _split(run.data)
        before = self._checksums(name, first, first + len(units))
        checksums = b"".join(_CHECKSUM.pack(update(EMPTY, unit)) for unit in units)
        self._files.write(map_file, [checksums], first * _CHECKSUM.size)
        return sum(_pages(len(unit)) for unit, marked in zip(units, before, strict=False) if marked)

    def _open_sized(self, path: str, size: int) -> tuple[int, bool]:
        """The file, made with that size if it was not there; whether it was made here."""
        while True:
            try:
                return self._files.open(self._root, path, os.O_WRONLY), False
            except FileNotFoundError:
                try:
                    descriptor = self._files.open(self._root, path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
                except FileExistsError:  # by somebody else, just now
                    continue
            try:
                self._files.extend(descriptor, size)
            except OSError:
                self._files.close(descriptor)
                raise
            return descriptor, True

    # --- both ---

    def _exists(self, path: str) -> bool:
        try:
            self._files.close(self._files.open(self._root, path, os.O_RDONLY))
        except FileNotFoundError:
            return False
        return True

    def _note_use(self, descriptor: int) -> None:
        """What was used last goes last: the time of a file's last change says when that was. A disk that takes no
        writes can still be read."""
        now = self._wall()
        if abs(now - self._files.status(descriptor).st_mtime) > _FRESH:
            with contextlib.suppress(OSError):
                self._files.used_now(descriptor, now)


def _compare(data: memoryview, checksums: Iterable[int]) -> None:
    """Raises Corrupt where a unit of `data` has another checksum."""
    for unit, checksum in zip(_split(data), checksums, strict=True):
        if update(EMPTY, unit) != checksum:
            raise Corrupt


def _split(data: memoryview) -> list[memoryview]:
    """Its units; the last may be shorter."""
    return [data[begin : begin + UNIT] for begin in range(0, len(data), UNIT)]


def _map_pages(size: int) -> int:
    return _pages(_units(size) * _CHECKSUM.size)


def _units(size: int) -> int:
    return (size + UNIT - 1) // UNIT


def _pages(size: int) -> int:
    return (size + _PAGE - 1) // _PAGE * _PAGE
