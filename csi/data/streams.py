"""What the filesystem asks of the data engine: a reader per open file, a writer per file being written.

`csi/data/engine.py` makes both. All calls are synchronous and thread-safe; they block on the network or on the memory
ledger, never on the GIL-bound work of others. Errors are `csi.errors.StoreError`s, raised to whoever asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from csi.oss.store import Buffer, ObjectVersion, PutResult
from csi.volume.units import Bytes, FileHandle, ObjectKey


class Reader(Protocol):
    """Random access to one version of one object. Several readers of one version share blocks."""

    @property
    def version(self) -> ObjectVersion: ...

    def try_read(self, offset: int, size: int) -> Buffer | None:
        """What `read` would return if it needs no waiting, else None: nothing is asked for, that is for `read`."""

    def read(self, offset: int, size: int) -> Buffer:
        """Exactly `size` bytes from `offset`, fewer only at the end of the object (b'' at or past it).

        The buffer stays valid as long as it is referenced. Raises PreconditionFailed when the object is no longer
        this version.
        """

    def close(self) -> None:
        """Give up the window, and take back its blocks; idempotent. Reads under way finish or raise BadHandle."""

    def file(self) -> tuple[int, int] | None:
        """A descriptor, the caller's own, of a local file that is exactly this version and never changes, and the
        version's number (as of `publish`); None when there is none now. Waits for nothing but the disk."""

    # --- for who answers reads from published blocks ---

    @property
    def notice(self) -> int:
        """Reads are worth answering from published blocks: whoever does it says `reached` when one ends beyond this
        offset. 0: they are not."""

    @property
    def scattered(self) -> bool:
        """Reads are at random places, as far as can be seen: each is a request for just its bytes, whoever makes it."""

    def publish(self) -> int | None:
        """Publish the blocks there are, and from now on those that come, until `close`: by which content number.
        None when the engine was given nothing to publish to."""

    def reached(self, offset: int, end: int) -> int:
        """All up to a read of `offset`..`end` was read from published blocks; returns the next `notice`. Never waits,
        never raises."""


class BlockTable(Protocol):
    """Where blocks are published for reads that are answered without the engine (`csi/fs/published.py` says more)."""

    def publish_block(self, content: int, start: int, data: Buffer) -> bool:
        """The bytes of `content`, a version, from `start`; they are held until taken back. False: no room."""

    def retract_block(self, content: int, start: int) -> None:
        """The memory is not used any more when this returns."""

    def retract_content(self, content: int) -> None:
        """All blocks of `content`."""


class Tail(Protocol):
    """Where the next bytes of a file that is being written belong, for who puts them there without the engine. Any
    thread may call any method; none waits for anything but a copy under way."""

    @property
    def position(self) -> int:
        """Of the file: up to there it was written, as far as this knows."""

    @property
    def written_ns(self) -> int:
        """When bytes were last put here, since the epoch; 0 if never."""

    def lend(self, position: int, room: list[memoryview]) -> None:
        """Bytes from `position` on may be put into `room`, one memory after the other, until `recall`."""

    def recall(self) -> int:
        """Nothing is put anywhere any more when this returns: `position`. Idempotent."""

    def show(self, handle: FileHandle) -> None:
        """Writes of `handle`, and of no other any more, that begin at `position` may be put here."""

    def hide(self) -> None:
        """Nobody finds it any more; idempotent."""


@dataclass(frozen=True, slots=True)
class WriterStatistics:
    """Of one writer, or of several together: bytes that were written and not sent yet, requests under way."""

    unsent: int = 0
    under_way: int = 0

    def __add__(self, other: WriterStatistics) -> WriterStatistics:
        return WriterStatistics(self.unsent + other.unsent, self.under_way + other.under_way)


class Writer(Protocol):
    """One object being written from its start (or from its end, in append mode), strictly in order."""

    @property
    def position(self) -> int:
        """Bytes accepted so far, including those an appender found: where the next `write` must be."""

    def write(self, data: Buffer) -> None:
        """Take a copy of `data`; may wait for the uploader. A failure of an earlier part is raised here, and again
        by every later call."""

    @property
    def tail(self) -> Tail | None:
        """What counts as written when it is put there. None: every byte has to come by `write`."""

    def lend(self) -> None:
        """Lend what room there is to `tail`, until anything else is called (or until memory is short)."""

    def copy(self, source: ObjectVersion, offset: int, size: int) -> bool:
        """Go on with `size` bytes of an object that is there already, copied inside OSS; False, with nothing done, if
        they have to be written instead (too few, or this kind of object cannot). That the object was another version
        by then is told by `finish`."""

    def keep(self) -> None:
        """From now on what was sent stays here too, as long as there is memory for it: somebody reads it."""

    @property
    def readable_from(self) -> int:
        """Where the bytes begin that are still here: those before are on their way to OSS, or were there at first."""

    def reread(self, offset: int, size: int) -> Buffer | None:
        """A copy of at most `size` bytes from `offset`, fewer only at the end of what was written; None if some of them
        are not here any more."""

    def flush(self) -> None:
        """Make what was written durable as far as the kind of object allows: append mode uploads everything and
        returns when OSS has it; a multipart or single-PUT writer only raises an error that is already known."""

    def finish(self) -> PutResult:
        """The object appears, whole, with its CRC64 checked. Idempotent; a failed finish raises the same error again
        and leaves no object and no upload behind."""

    def abandon(self) -> None:
        """Nothing appears (append mode: what was flushed stays). Idempotent; never raises."""

    @property
    def visible_version(self) -> ObjectVersion | None:
        """In append mode the version readers can see now; None for an object not yet finished."""


class Scratch(Protocol):
    """Bytes of a file that will never be an object, in any order, at most `most` of them. Nothing waits; they may be
    gone at any moment, and then stay so."""

    most: int

    def write(self, offset: int, data: Buffer) -> bool:
        """Take a copy of `data`; what is left out before it is zeros. False: all of the file is gone."""

    def read(self, offset: int, size: int) -> Buffer | None:
        """A copy of at most `size` bytes, fewer only at the end; None if they are gone."""

    def resize(self, size: int) -> bool:
        """Cut the file, or continue it with zeros. False: all of it is gone."""

    def close(self) -> None:
        """The memory is free; idempotent."""


class StreamSource(Protocol):
    """The engine as the filesystem sees it."""

    def gains_ahead(self, size: Bytes) -> bool:
        """Whether a request for `size` bytes takes long enough, of late, that one made before it is wanted is a gain:
        next to a store that answers at once it only costs."""

    def prefetch(self, version: ObjectVersion) -> bool:
        """Fetch a small object that will probably be read soon, after everything else that is wanted. False: nothing
        more of this kind now, there is no memory for it. Does not wait."""

    def open_reader(self, version: ObjectVersion, *, exact: bool = False) -> Reader:
        """A reader of one version. `exact`: only what is asked for is fetched, no read-ahead."""

    def open_writer(
        self,
        key: ObjectKey,
        *,
        base: ObjectVersion | None = None,
        user: Mapping[str, str] | None = None,
        content_type: str = "",
        forbid_overwrite: bool = False,
    ) -> Writer:
        """A writer of the object `key`, which begins with the bytes of `base` if one is given. Raises
        OutOfMemoryBudget when too much is being written already."""

    def open_appender(self, key: ObjectKey, *, position: int) -> Writer:
        """A writer that appends to the Appendable object `key`, of length `position`; makes it when that is 0."""

    def open_scratch(self) -> Scratch:
        """An empty file without a name."""
