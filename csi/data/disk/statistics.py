"""What a disk cache has done so far and holds now."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DiskStatistics:
    """`directory_bytes` and `limit` are of the directory, which may be shared; `queued_bytes` is of offers not yet
    written, `unchecked` entries that are to be looked at as a whole. So far: blocks (bytes) read from the disk, and not
    found there; offers written, and passed over because there was no time, memory or room; entries removed for room,
    and because they were not what was written; calls that failed. `trouble` says why nothing is kept now, '' if
    something is."""

    limit: int
    directory_bytes: int
    queued_bytes: int
    unchecked: int
    hits: int
    hit_bytes: int
    misses: int
    stored: int
    stored_bytes: int
    passed_over: int
    evicted: int
    corrupt: int
    failed: int
    trouble: str
