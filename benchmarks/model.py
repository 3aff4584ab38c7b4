"""The words of the harness: works, cases, metrics and bars, what one run yields, and a row of the results.

Plain data and one protocol; it must not know servers, clients or files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

GB = 1_000_000_000
MIB = 1 << 20
GIB = 1 << 30
OURS = "ossfuse"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the works are. The defaults are those of the project's bars; `quick` is for looking while changing."""

    large: int = 4 * GIB
    small_files: int = 20_000
    small_size: int = 100 << 10
    random_reads: int = 20_000
    first_files: int = 200
    written: int = 4 * GIB
    written_files: int = 5_000
    entries: int = 100_000
    tree_prefixes: int = 10_000
    tree_entries: int = 100
    handles: int = 500
    handle_seconds: int = 8
    handle_files: int = 32
    handle_size: int = 64 * MIB
    images: int = 50_000
    checkpoint: int = 4 * GIB


QUICK = Sizes(
    large=512 * MIB,
    small_files=2_000,
    random_reads=2_000,
    first_files=50,
    written=1 * GIB,  # with 256 MiB a fifth of the CPU is memory that is touched for the first time
    written_files=300,
    entries=5_000,
    tree_prefixes=100,
    tree_entries=100,
    handles=100,
    handle_seconds=3,
    images=4_000,
    checkpoint=512 * MIB,
)


@dataclass(frozen=True, slots=True)
class Files:
    """Objects a work reads: `count` of `size` bytes below `prefix`. `listed_only`: nobody reads them, they have no
    bytes. `name` may hold {n}; a `count` of 1 and a plain name is one object. `maker` is a command that makes that
    one, given the file's name, instead of the load program; its size is then what it turns out to be."""

    prefix: str
    name: str
    count: int
    size: int
    listed_only: bool = False
    maker: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Case:
    """One setting of a work. `threads` of the program that reads; `count` what it reads, where that is not all,
    in an order made from `seed` (0: of the names). `mode` is of our mount; `kind` what a work has of its own. `limits`
    of metrics go before those of the metrics themselves; `raced`: their ratios to others are held against bars.
    `remounted`: the work is done twice with a cache on disk, and counts the second time, by a mount that finds there
    what the first one has read."""

    name: str
    threads: int = 1
    latency_ms: int = 0
    count: int = 0
    size: int = 0
    memory: str = ""
    mode: str = ""
    kind: str = ""
    seed: int = 0
    remounted: bool = False
    raced: bool = True
    limits: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Metric:
    """What is compared. `bars`: client or kind of client → least ratio, ours to theirs, better being larger.
    `limit`: what ours must not exceed (or, where `higher` is better, not fall below), whatever others do."""

    name: str
    higher: bool = True
    bars: Mapping[str, float] = field(default_factory=dict)
    limit: float | None = None
    digits: int = 0
    compare: bool = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the load program says: whether all was right, and how long it took. `cpu` seconds and `memory` are those of
    the work alone, where a program counts them itself because getting ready costs it much."""

    seconds: float
    bytes: int
    operations: int
    listing_seconds: float = 0.0
    median: float = 0.0
    p99: float = 0.0
    wrong: str = ""
    cpu: float = 0.0
    memory: int = 0


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds of all processes of a client; peak resident bytes of each; requests the server saw; bytes it sent."""

    cpu: float
    memory: Mapping[str, int]
    requests: Mapping[str, int]
    sent: int

    @property
    def peak(self) -> int:
        return sum(self.memory.values())


@dataclass(frozen=True, slots=True)
class Sample:
    outcome: Outcome
    cost: Cost


@dataclass(frozen=True, slots=True)
class Row:
    """One line of results.json. `value` is how many times better ours is, or with the peer `bar`, our figure itself."""

    work: str
    case: str
    ours: float
    peer: str
    peer_value: float | None
    value: float
    bar: float | None
    holds: bool | None
    rounds: int
    spread: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Program:
    """A command that is not a mount: a library's script or curl. It prints what the load program prints; its standard
    input is the credential file."""

    command: Sequence[str]


@dataclass(frozen=True, slots=True)
class Ground:
    """Where a work runs: the load program, the address of the server, the bucket, and a directory for its own use."""

    load: Path
    endpoint: str
    bucket: str
    scratch: Path
    python: Path
    sizes: Sizes


class Work(Protocol):
    """Name, cases and metrics are data; `figures` gives the metrics of a sample by name, in their order."""

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def metrics(self) -> Sequence[Metric]: ...
    @property
    def writes(self) -> bool:
        """Whether mounts are writable; what lies below the prefix is removed before each run."""

    @property
    def only(self) -> frozenset[str]:
        """The clients that take part; empty for all but those that are for one work only."""

    @property
    def programs(self) -> frozenset[str]:
        """The clients that are run without a mount here, though they are one elsewhere."""

    def cases(self, sizes: Sizes) -> Sequence[Case]: ...
    def prefix(self, case: Case) -> str:
        """What is mounted."""

    def files(self, sizes: Sizes) -> Sequence[Files]: ...
    def run(self, case: Case, root: Path, ground: Ground) -> Outcome:
        """The work on a mount. An outcome with `wrong` set names why the client's row is dropped."""

    def program(self, case: Case, client: str, ground: Ground) -> Program | None:
        """The same by a client that is no mount; None where there is none."""

    def check(self, case: Case, sample: Sample, ground: Ground) -> str:
        """What is wrong with a sample, beyond what the load program saw; '' when nothing."""

    def figures(self, case: Case, sample: Sample) -> Mapping[str, float]: ...
