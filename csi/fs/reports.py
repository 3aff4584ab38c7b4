"""What a filesystem tells about itself: for the status of a sidecar, never for a decision."""

from __future__ import annotations

from dataclasses import dataclass, field

from csi.data.workers import WorkerStatistics
from csi.fs.knowledge import KnowledgeStatistics
from csi.fs.memory import MetadataMemoryStatistics
from csi.fs.offers import OfferStatistics
from csi.fs.published import PublishedStatistics
from csi.fs.siblings import SiblingStatistics
from csi.fs.together import TogetherStatistics
from csi.fs.turns import GateStatistics
from csi.fs.walks import WalkStatistics
from csi.volume.units import FileHandle


@dataclass(frozen=True, slots=True)
class OpenFileReport:
    """One open(2) for the status of a sidecar."""

    handle: FileHandle
    path: str
    writing: bool
    size: int


@dataclass(frozen=True, slots=True)
class FilesystemReport:
    """`inodes` the kernel may know, `open_files`, `open_directories`, files being `writing`, and changes in the `gate`:
    these say whether anything is going on. The rest is memory of what was: knowledge, listings and files read ahead,
    and what the kernel session says by itself."""

    inodes: int
    open_files: int
    open_directories: int
    writing: int
    gate: GateStatistics = field(default=GateStatistics())
    knowledge: KnowledgeStatistics = field(default=KnowledgeStatistics(0, 0, 0, 0), compare=False)
    offers: OfferStatistics = field(default=OfferStatistics(), compare=False)
    walks: WalkStatistics = field(default=WalkStatistics(0, 0, 0), compare=False)
    together: TogetherStatistics = field(default=TogetherStatistics(), compare=False)
    siblings: SiblingStatistics = field(default=SiblingStatistics(), compare=False)
    pages: WorkerStatistics = field(default=WorkerStatistics(0, 0, 0, 0, 0, 0), compare=False)
    published: PublishedStatistics = field(default=PublishedStatistics(), compare=False)
    memory: MetadataMemoryStatistics = field(default=MetadataMemoryStatistics(0, 0, 0), compare=False)
