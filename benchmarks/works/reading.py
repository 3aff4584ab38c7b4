"""What works that read are made of: nothing written, no client without a mount, the files they read, costs a GiB."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.model import GIB, Case, Files, Ground, Program, Sample, Sizes

LARGE = "large/"
LARGE_NAME = "object"
SMALL = "small/"
PROGRAMS = Path(__file__).parent.parent / "programs"


class Reading:
    """Defaults of a work that reads."""

    writes = False
    only: frozenset[str] = frozenset()
    programs: frozenset[str] = frozenset()

    def program(self, case: Case, client: str, ground: Ground) -> Program | None:
        return None

    def check(self, case: Case, sample: Sample, ground: Ground) -> str:
        return ""


def large(sizes: Sizes) -> Sequence[Files]:
    return (Files(LARGE, LARGE_NAME, 1, sizes.large),)


def small(sizes: Sizes) -> Sequence[Files]:
    return (Files(SMALL, "{n:06d}", sizes.small_files, sizes.small_size),)


def cpu_per_gib(sample: Sample) -> float:
    return sample.cost.cpu / (sample.outcome.bytes / GIB) if sample.outcome.bytes else 0.0


def peak_mib(sample: Sample) -> float:
    return sample.cost.peak / (1 << 20)


def curl(ground: Ground, *arguments: str | int) -> Program:
    """programs/curl.py: what plain curl needs for the same bytes."""
    return Program((str(ground.python), str(PROGRAMS / "curl.py"), ground.endpoint, *map(str, arguments)))


def library(ground: Ground, client: str, *arguments: str | int) -> Program:
    """programs/library.py: the same through a library."""
    command = (str(ground.python), str(PROGRAMS / "library.py"), client, ground.endpoint, ground.bucket)
    return Program((*command, *map(str, arguments)))
