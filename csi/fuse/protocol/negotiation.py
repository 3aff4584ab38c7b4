"""INIT: what kernel and server agree on for the life of a connection.

The result is a value that can be kept: a successor that takes a connection over is told it, because the kernel never
asks again.
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass

from csi.fuse.protocol.bodies import Init
from csi.fuse.protocol.constants import MAJOR, NEWEST_MINOR, OLDEST_MINOR, InitFlag

_OUT = struct.Struct("<IIIIHHIIHHIIH22x")
assert _OUT.size == 64  # noqa: S101 - a layout that is wrong must not be used at all

PAGE = 4096
_MIB = 1024 * 1024
DEFAULT_MAX_PAGES = 256
"""/proc/sys/fs/fuse/max_pages_limit as the kernel has it from the start; older kernels know no other."""
MOST_PAGES = 4 * _MIB // PAGE
LARGEST_WRITE = MOST_PAGES * PAGE

MAX_BACKGROUND = 64
CONGESTION_THRESHOLD = 48
STACK_DEPTH = 1
"""Of a mount that passes files through: they may lie on any filesystem that lies on no other (overlayfs does)."""

_WANTED = (
    InitFlag.ASYNC_READ
    | InitFlag.ATOMIC_O_TRUNC
    | InitFlag.BIG_WRITES
    | InitFlag.AUTO_INVAL_DATA
    | InitFlag.DO_READDIRPLUS
    | InitFlag.ASYNC_DIO
    | InitFlag.PARALLEL_DIROPS
    | InitFlag.HANDLE_KILLPRIV
    | InitFlag.HANDLE_KILLPRIV_V2  # no file here has bits to take off; the kernel then need not look before each write
    | InitFlag.ABORT_ERROR
    | InitFlag.MAX_PAGES
    | InitFlag.SETXATTR_EXT
    | InitFlag.HAS_EXPIRE_ONLY
    | InitFlag.DIRECT_IO_ALLOW_MMAP
    | InitFlag.HAS_RESEND
)
"""Always, where the kernel has them. Not among them: locks (the kernel keeps them, one node sees one mount),
WRITEBACK_CACHE (close would not tell the truth), EXPLICIT_INVAL_DATA (a file that grows elsewhere would show the zeros
after its old end), NO_OPEN and NO_OPENDIR (an open binds a version, an opendir a listing)."""


class VersionNotSupported(ValueError):
    """The kernel speaks a protocol this one has nothing in common with."""


@dataclass(frozen=True, slots=True)
class InitResult:
    """What was agreed on. `flags` has all 64 bits; sizes in bytes."""

    major: int
    minor: int
    flags: int
    max_readahead: int
    max_write: int
    max_pages: int
    max_background: int
    congestion_threshold: int

    def has(self, flag: InitFlag) -> bool:
        return bool(self.flags & flag)

    def encode(self) -> bytes:
        """struct fuse_init_out."""
        return _OUT.pack(
            self.major,
            self.minor,
            self.max_readahead,
            self.flags & 0xFFFFFFFF,
            self.max_background,
            self.congestion_threshold,
            self.max_write,
            1,  # time_gran: nanoseconds
            self.max_pages,
            0,
            self.flags >> 32,
            STACK_DEPTH if self.has(InitFlag.PASSTHROUGH) else 0,
            0,
        )

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> InitResult:
        """Raises ValueError for what `to_json` did not write."""
        values = json.loads(text)
        if not isinstance(values, dict) or not all(isinstance(value, int) for value in values.values()):
            raise ValueError("an object of numbers expected")
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(str(error)) from None


def answer_to_other_major() -> bytes:
    """To a kernel with a newer major version: it asks again with this one."""
    return _OUT.pack(MAJOR, NEWEST_MINOR, *([0] * 11))


def negotiate(
    asked: Init,
    *,
    max_pages: int = DEFAULT_MAX_PAGES,
    symlinks_last: bool = False,
    bare_names: bool = True,
    passthrough: bool = False,
    largest_write: int = LARGEST_WRITE,
) -> InitResult:
    """The answer to INIT. `max_pages` is what the kernel allows a request to carry, `largest_write` how many bytes one
    that writes may. `symlinks_last`: a symlink's target may be kept for as long as the symlink. `bare_names`: a
    directory may be read without attributes where the kernel has no use for them. `passthrough`: opens may name local
    files that are read in place of this server.

    Raises VersionNotSupported.
    """
    if asked.major != MAJOR or asked.minor < OLDEST_MINOR:
        raise VersionNotSupported(f"the kernel speaks FUSE {asked.major}.{asked.minor}, not {MAJOR}.{OLDEST_MINOR}")
    wanted = _WANTED
    if symlinks_last:
        wanted |= InitFlag.CACHE_SYMLINKS
    if bare_names:
        wanted |= InitFlag.READDIRPLUS_AUTO
    if passthrough:
        wanted |= InitFlag.PASSTHROUGH
    flags = int(wanted) & asked.flags
    if asked.flags & InitFlag.INIT_EXT:
        flags |= InitFlag.INIT_EXT
    else:
        flags &= 0xFFFFFFFF
    pages = max(1, min(max_pages, MOST_PAGES)) if flags & InitFlag.MAX_PAGES else 32
    return InitResult(
        major=MAJOR,
        minor=min(asked.minor, NEWEST_MINOR),
        flags=flags,
        max_readahead=asked.max_readahead,
        max_write=min(pages * PAGE, largest_write),
        max_pages=pages,
        max_background=MAX_BACKGROUND,
        congestion_threshold=CONGESTION_THRESHOLD,
    )
