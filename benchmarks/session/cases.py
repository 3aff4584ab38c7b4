"""What is asked of every server: eleven kinds of work, each by one, four and eight threads where that means something.

Seven are bytes per second or operations per second of plain work; the same with a spinning thread in the process are
those whose answers a server has ready: reads, names, attributes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Case:
    """`kind` is load.c's word. `busy`: with one pure-Python thread spinning in the server's process."""

    kind: str
    threads: int
    unit: str
    busy: bool = False

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.threads}" + ("-busy" if self.busy else "")


MB, OPERATIONS = "MB/s", "op/s"

_KINDS: tuple[tuple[str, str, tuple[int, ...]], ...] = (
    ("buffered", MB, (1, 4, 8)),  # sequential, 1 MiB calls, through the page cache
    ("direct", MB, (1, 4, 8)),  # sequential, O_DIRECT, 1 MiB requests
    ("random", OPERATIONS, (1, 4, 8)),  # 4 KiB
    ("small", OPERATIONS, (1, 4, 8)),  # open, read 100 KiB, close
    ("stat", OPERATIONS, (1, 4, 8)),  # a name and its attributes
    ("readdir", OPERATIONS, (1,)),  # entries of a directory of 10,000
    ("write", MB, (1, 4)),  # 1 MiB calls through the page cache
    ("write-direct", MB, (1, 4)),
)
_READY: tuple[tuple[str, str], ...] = (
    ("direct", MB),
    ("random", OPERATIONS),
    ("lookup", OPERATIONS),
    ("getattr", OPERATIONS),
)
_READY_THREADS = 4

QUIET = tuple(Case(kind, threads, unit) for kind, unit, counts in _KINDS for threads in counts)
BUSY = tuple(Case(kind, _READY_THREADS, unit, busy=True) for kind, unit in _READY)


def selected(words: frozenset[str]) -> tuple[Case, ...]:
    """All of them, or those whose kind, name or class ("quiet", "busy") is named; raises ValueError for a word that is
    none of these."""
    everything = QUIET + BUSY
    known = {"quiet", "busy"} | {case.kind for case in everything} | {case.name for case in everything}
    if unknown := words - known:
        raise ValueError(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    if not words:
        return everything
    return tuple(case for case in everything if words & {case.kind, case.name, "busy" if case.busy else "quiet"})
