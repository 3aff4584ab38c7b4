"""What a filesystem tells about itself: for the status of a sidecar, never for a decision."""

from __future__ import annotations

from dataclasses import dataclass

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
    """`inodes` the kernel may know, `open_files`, `open_directories`, files being `writing`."""

    inodes: int
    open_files: int
    open_directories: int
    writing: int
