"""The works of the harness, in the order they are run. Adding one is a module with a Work and a line here."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.model import Work
from benchmarks.works.cached_read import CachedRead
from benchmarks.works.first_byte import FirstByte
from benchmarks.works.listing import Listing
from benchmarks.works.medium_files import MediumFiles
from benchmarks.works.memory import Memory
from benchmarks.works.random_read import RandomRead
from benchmarks.works.sequential_read import SequentialRead
from benchmarks.works.sequential_write import SequentialWrite
from benchmarks.works.siblings import Siblings
from benchmarks.works.small_files import SmallFiles
from benchmarks.works.small_write import SmallWrite
from benchmarks.works.torch_checkpoint import TorchCheckpoint
from benchmarks.works.torch_images import TorchImages

WORKS: Sequence[Work] = (
    SequentialRead(),
    SmallFiles(),
    Siblings(),
    MediumFiles(),
    RandomRead(),
    SequentialWrite(),
    SmallWrite(),
    Listing(),
    FirstByte(),
    Memory(),
    TorchImages(),
    TorchCheckpoint(),
)
BY_WISH: Sequence[Work] = (CachedRead(),)
"""Those that are run only when they are named."""


def by_name(name: str) -> Work:
    known = (*WORKS, *BY_WISH)
    for work in known:
        if work.name == name:
            return work
    raise SystemExit(f"no such work: {name}; known are {', '.join(work.name for work in known)}")
