"""The works of the harness, in the order they are run. Adding one is a module with a Work and a line here."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.model import Work
from benchmarks.works.random_read import RandomRead
from benchmarks.works.sequential_read import SequentialRead
from benchmarks.works.small_files import SmallFiles

WORKS: Sequence[Work] = (SequentialRead(), SmallFiles(), RandomRead())


def by_name(name: str) -> Work:
    for work in WORKS:
        if work.name == name:
            return work
    raise SystemExit(f"no such work: {name}; known are {', '.join(work.name for work in WORKS)}")
