"""How large the parts of a multipart upload are, when nobody says how large the file will be.

Part sizes grow in stages, so that small files upload early and in parallel and yet 10,000 parts (OSS's limit) reach
far: with the default of 8 MiB, 1,000 parts of 8 MiB, 1,000 of 32 MiB and 8,000 of 128 MiB hold 1 TiB. A part must be
in memory whole before it is sent, so a writer's share of the memory caps its parts, and with them the largest file it
can write (`largest_object`). Pure arithmetic.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from csi.volume.units import GIB, KIB

MOST_PARTS = 10_000
SMALLEST_PART = 100 * KIB
"""OSS refuses smaller parts, except the last (EntityTooSmall)."""
LARGEST_PART = 5 * GIB
_LARGEST_COPY = 1 * GIB

_STAGES = ((1_000, 1), (2_000, 4), (MOST_PARTS, 16))
"""Up to this part number, parts are this many times the first."""


@dataclass(frozen=True, slots=True)
class PartPlan:
    """`first`: size of the first parts in bytes."""

    first: int

    def size_of(self, number: int, cap: int) -> int:
        """Bytes of part `number` (from 1) when a part may take `cap` bytes of memory; 0 beyond the last part."""
        for last, factor in _STAGES:
            if number <= last:
                return max(min(self.first * factor, cap, LARGEST_PART), SMALLEST_PART)
        return 0

    def largest_object(self, cap: int) -> int:
        """The bytes that all parts together hold when each may take `cap` bytes of memory."""
        total = before = 0
        for last, _ in _STAGES:
            total += (last - before) * self.size_of(last, cap)
            before = last
        return total


def copied_ranges(size: int, largest: int = _LARGEST_COPY) -> list[tuple[int, int]]:
    """Offsets and sizes that cover an existing object of `size` bytes (at least SMALLEST_PART) by UploadPartCopy.

    Ranges are of nearly equal size, up to `largest`, more only if more than half of the parts would be used up.
    """
    largest = max(largest, -(-size // (MOST_PARTS // 2)))
    count = -(-size // largest)
    edges = [size * index // count for index in range(count + 1)]
    return [(start, end - start) for start, end in itertools.pairwise(edges)]
