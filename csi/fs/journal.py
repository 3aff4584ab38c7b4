"""What is left of a process that was killed: records by key, in memory that somebody else holds too.

A process notes here what its successor must know of what it promised (`csi/fs/succession.py`), before it promises it.
The memory is a file of a bounded size whose descriptor is held by whoever also holds that of the kernel session: a
memfd of `make`, or a file on tmpfs that is allocated already (a page that cannot be had is a SIGBUS). One process at a
time has it open as a `Journal`, which begins with what the last one left.

The file has two halves, of which one is in use. A half begins with its generation, how many processes have used the
journal, and a checksum; records follow, each with its length and a checksum that depends on the generation, so that
what an earlier generation left behind them is not taken for more. The first record whose checksum is wrong is the end:
its writer was killed in the middle of it, before it told anybody what the record says. A half that is full is followed
by the other one, which gets what is still alive, and its head last. So at every instant one of them is whole.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import threading
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from csi.volume.units import KIB, MIB, Bytes

SIZE = Bytes(8 * MIB)
"""Some 15,000 records of ordinary length; only what was written once takes memory."""
LEAST = Bytes(16 * KIB)

_MAGIC = b"ossfuse1"
_HEAD = struct.Struct("<8sQQ")  # then its CRC
_CRC = struct.Struct("<I")
_FRAME = struct.Struct("<II")  # length, CRC
_FIRST = _HEAD.size + _CRC.size


@dataclass(frozen=True, slots=True)
class JournalStatistics:
    """`records` that are alive and the bytes they take, of `room`; `refused` what found none so far."""

    records: int
    held: int
    room: int
    refused: int


def make(size: int = SIZE) -> int:
    """A descriptor for a new journal. It belongs to the caller, who passes it on to one process after the other."""
    descriptor = os.memfd_create("ossfuse-journal", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, size)
    return descriptor


class Journal:
    """`_lock` guards everything; it is innermost, and nothing waits under it."""

    def __init__(self, descriptor: int, spare: int = 0) -> None:
        """`descriptor` stays the caller's. The last `spare` bytes of the file are left to others (`tail`). Raises
        ValueError for a file that is too small to be one."""
        whole = os.fstat(descriptor).st_size
        self.tail = descriptor, whole - spare, spare
        """Descriptor, offset and size of what is not the journal's."""
        size = whole - spare
        if size < LEAST:
            raise ValueError(f"a journal has at least {LEAST} bytes, not {size}")
        self._memory = mmap.mmap(descriptor, size)
        self._half = size // 2
        self._most = (self._half - _FIRST) * 3 // 4  # alive; what is left is for what dies
        self._lock = threading.Lock()
        self._refused = 0
        self._end = 0
        # pread: looking at what was never written takes no memory
        halves = [_read(os.pread(descriptor, self._half, start)) for start in (0, self._half)]
        last = max((half for half in halves if half is not None), key=lambda half: half[0], default=(0, 0, {}))
        self._generation, used, self._records = last
        self._held = sum(_FRAME.size + len(body) for body in self._records.values())
        self.place = used + 1
        """This process is the first to use the journal, the second, …"""
        self._turn_over()

    def left(self) -> list[tuple[str, Sequence[Any]]]:
        """What is noted, in the order in which it was noted last."""
        with self._lock:
            return [_decoded(body) for body in self._records.values()]

    def find(self, key: str) -> Sequence[Any] | None:
        """What is noted of `key`; None: nothing."""
        with self._lock:
            body = self._records.get(key)
            return None if body is None else _decoded(body)[1]

    def read_tail(self) -> bytes:
        """What a predecessor left in `tail`."""
        descriptor, start, size = self.tail
        return os.pread(descriptor, size, start)

    def clear_tail(self) -> None:
        descriptor, start, size = self.tail
        os.pwrite(descriptor, bytes(size), start)

    @property
    def filled(self) -> float:
        """How much of the room is taken by what is alive: 0 to 1."""
        return self._held / self._most

    def note(self, key: str, values: Iterable[object]) -> bool:
        """`values` (JSON has them) are what is to be known of `key`, whatever was noted of it before. False: there is
        no room; nothing is noted of `key` then."""
        body = json.dumps([key, *values], separators=(",", ":")).encode()
        with self._lock:
            if self._records.get(key) == body:
                return True
            before = self._records.pop(key, None)
            held = self._held - (_FRAME.size + len(before) if before is not None else 0)
            if held + _FRAME.size + len(body) > self._most:
                self._refused += 1
                if before is not None:
                    self._held = held
                    self._append(json.dumps([key]).encode())
                return False
            self._held = held + _FRAME.size + len(body)
            self._records[key] = body
            self._append(body)
            return True

    def has(self, key: str) -> bool:
        return key in self._records

    def drop(self, key: str) -> None:
        """Nothing is known of `key` any more."""
        with self._lock:
            before = self._records.pop(key, None)
            if before is not None:
                self._held -= _FRAME.size + len(before)
                self._append(json.dumps([key]).encode())

    def statistics(self) -> JournalStatistics:
        with self._lock:
            return JournalStatistics(len(self._records), self._held, self._most, self._refused)

    def close(self) -> None:
        """Nothing is noted any more; what is there stays for the next process."""
        with self._lock:
            self._memory.close()

    # --- private; the lock is held ---

    def _append(self, body: bytes) -> None:
        """Write a record that is in `_records` already, or not any more."""
        framed = _framed(body, self._generation)
        if self._end + len(framed) > self._half:
            self._turn_over()
            return
        start = self._half * (self._generation % 2) + self._end
        self._memory[start : start + len(framed)] = framed
        self._end += len(framed)

    def _turn_over(self) -> None:
        """Go on in the other half, with what is alive. Until its head is whole, the one in use is the last."""
        generation = self._generation + 1
        start = self._half * (generation % 2)
        records = b"".join([_framed(body, generation) for body in self._records.values()])
        self._memory[start + _FIRST : start + _FIRST + len(records)] = records
        head = _HEAD.pack(_MAGIC, generation, self.place)
        self._memory[start : start + _FIRST] = head + _CRC.pack(zlib.crc32(head))
        self._generation, self._end = generation, _FIRST + len(records)


def _framed(body: bytes, generation: int) -> bytes:
    return _FRAME.pack(len(body), zlib.crc32(body, generation & 0xFFFFFFFF)) + body


def _decoded(body: bytes) -> tuple[str, Sequence[Any]]:
    key, *values = json.loads(body)
    return key, values


def _read(half: bytes) -> tuple[int, int, dict[str, bytes]] | None:
    """Generation, processes so far and records; None of a half that was never in use, or that is being written."""
    magic, generation, used = _HEAD.unpack_from(half)
    if magic != _MAGIC or _CRC.unpack_from(half, _HEAD.size)[0] != zlib.crc32(half[: _HEAD.size]):
        return None
    records: dict[str, bytes] = {}
    at = _FIRST
    while at + _FRAME.size <= len(half):
        length, checksum = _FRAME.unpack_from(half, at)
        body = half[at + _FRAME.size : at + _FRAME.size + length]
        if length == 0 or len(body) < length or zlib.crc32(body, generation & 0xFFFFFFFF) != checksum:
            break
        key, values = _decoded(body)
        records.pop(key, None)
        if values:
            records[key] = body
        at += _FRAME.size + length
    return generation, used, records
