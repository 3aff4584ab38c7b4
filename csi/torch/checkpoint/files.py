"""The file objects that `torch.load` and `torch.save` are given: `io.RawIOBase` over `loading` and `saving`.

torch drives both from C++, and may report an error of ours as one of its own; a file used as a context manager raises
ours then, from torch's. Each is for one thread at a time, as files are.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from csi.errors import BadHandle, InvalidOperation, OssFuseError
from csi.oss.store import Buffer, ObjectVersion
from csi.torch.checkpoint.engine import Engine
from csi.torch.checkpoint.loading import Loading
from csi.torch.refusals import FileClosed, StreamUnsupported
from csi.torch.uri import ObjectUri

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


class _CheckpointFile(io.RawIOBase):
    """Knows which object it is."""

    def __init__(self, uri: ObjectUri) -> None:
        super().__init__()
        self._uri = uri

    @property
    def key(self) -> str:
        return f"/{self._uri.bucket}/{self._uri.key}"

    @property
    def name(self) -> str:
        return str(self._uri)

    def _closed(self) -> FileClosed:
        return FileClosed(f"{self._uri}: I/O operation on closed file")

    def _unsupported(self, operation: str) -> StreamUnsupported:
        return StreamUnsupported(f"{self._uri}: {operation} is not possible here")


class CheckpointReader(_CheckpointFile):
    """One version of an object, read anywhere. `engine` gives the engine of the process that asks."""

    def __init__(self, uri: ObjectUri, engine: Callable[[], Engine]) -> None:
        super().__init__(uri)
        self._engine_here = engine
        self._engine = engine()
        self._version = self._engine.version_of(uri)
        self._loading: Loading | None = self._engine.load(uri, self._version)
        self._position = 0
        self._failure: OssFuseError | None = None

    # `read` and `readinto` are defined in this class, not in a parent: torch's C++ looks for `read` with our error
    # pending when `readinto` has raised, which hides the error if it takes a search.

    def read(self, size: int | None = -1, /) -> bytes:
        """`size` bytes, fewer only at the end; all the rest with −1."""
        left = max(0, self.size - self._position)
        count = left if size is None or size < 0 else min(size, left)
        if not count:
            self._opened()
            return b""
        room = io.BytesIO()  # the way to fill bytes in place: they are not copied when they are taken out
        room.seek(count - 1)
        room.write(b"\0")
        with room.getbuffer() as view:
            self.readinto(view)
        return room.getvalue()

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        target = memoryview(buffer).cast("B")
        count = min(len(target), max(0, self.size - self._position))
        loading = self._opened()
        if count:
            try:
                loading.read(self._position, target[:count])
            except OssFuseError as error:
                self._failure = error
                raise
            self._position += count
        return count

    def readall(self) -> bytes:
        return self.read(-1)

    def peek(self, size: int = 1, /) -> bytes:
        """Some of the bytes that come next, without reading them; none at the end. `readline` finds it."""
        loading = self._opened()
        found = loading.peek(self._position)
        if not found and size and self._position < self.size:
            position = self._position
            found = self.read(1)
            self._position = position
            found = loading.peek(position) or found
        return found

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._opened()
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}.get(whence)
        if base is None or base + offset < 0:
            raise InvalidOperation(f"{self._uri}: cannot seek to {offset} from {whence}")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        self._opened()
        return self._position

    def write(self, data: ReadableBuffer, /) -> int:
        raise self._unsupported("writing")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    @property
    def size(self) -> int:
        """Bytes of the object, known from the start."""
        return int(self._version.size)

    @property
    def version(self) -> ObjectVersion:
        return self._version

    def close(self) -> None:
        """Give up what is being fetched. Idempotent."""
        loading, self._loading = self._loading, None
        if loading is not None and self._engine.process == os.getpid():
            loading.close()
            self._engine.released()
        super().close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        _raise_ours(self._failure, error)

    def __del__(self) -> None:
        if getattr(self, "_loading", None) is not None:
            self.close()

    def _opened(self) -> Loading:
        if self._loading is None:
            raise self._closed()
        if self._engine.process != os.getpid():  # the threads of the parent are not here
            self._engine = self._engine_here()
            self._loading = self._engine.load(self._uri, self._version)
        return self._loading


class CheckpointWriter(_CheckpointFile):
    """An object written from start to end, which appears when it is closed and not before.

    `with` gives it up when the block raises. So does the end of the process, or of the last reference to an open one.
    """

    def __init__(self, uri: ObjectUri, engine: Engine) -> None:
        super().__init__(uri)
        self._engine = engine
        self._saving = engine.save(uri)
        engine.drop_when_gone(self, self._saving)
        self._open = True
        self._forgotten = False

    def write(self, data: ReadableBuffer, /) -> int:
        """Take all of `data`, which may be changed when this has returned."""
        view = _flat(data)
        if self._forgotten and not self.closed:  # what the buffer around it still had, between its warning and its end
            return len(view)
        self._check()
        self._saving.write(view)
        return len(view)

    def flush(self) -> None:
        """Raise what is known to have gone wrong. Nothing appears before `close`."""
        if self._open:
            self._check()
            self._saving.check()
        elif self.closed:
            raise self._closed()

    def tell(self) -> int:
        self._check()
        return self._saving.position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Raises StreamUnsupported, also for where the file ends already: by that zipfile, and so `numpy.savez`, learns
        that it cannot go back later."""
        self._check()
        raise StreamUnsupported(
            f"{self._uri}: cannot seek to {offset} from {whence}: what was written has been sent",
            hint="write to a local file or io.BytesIO first, and copy that",
        )

    def read(self, size: int | None = -1, /) -> bytes:
        raise self._unsupported("reading")

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        raise self._unsupported("reading")

    def readall(self) -> bytes:
        raise self._unsupported("reading")

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        """False: what was written has been sent."""
        return False

    def close(self) -> None:
        """The object is there when this returns, whole and with OSS's checksum compared; when it raises, the object is
        what it was. Idempotent, but for a writer that was given up with a buffer that was forgotten."""
        if not self._open:
            if self._forgotten and self.closed:  # the buffer has had its end; who closes now believes all was written
                raise FileClosed(
                    f"{self._uri}: nothing was saved, for a buffer around the writer was left without close",
                    hint="close the buffer, or call its flush and detach, before it goes out of scope",
                )
            super().close()
            return
        self._check()
        try:
            self._saving.finish()
        finally:
            self._end()

    def abort(self) -> None:
        """Give up: the object stays what it was, and no part stays at OSS. Idempotent."""
        if self._open:
            self._check()
            self._saving.abandon()
            self._end()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        failure = self._saving.error
        self.abort()
        _raise_ours(failure, error)

    def __del__(self) -> None:
        """Not `close`, which a file does: what was not finished is given up (`Engine.drop_when_gone`)."""
        if getattr(self, "_open", False):
            self._dealloc_warn(self)

    def _dealloc_warn(self, source: object, /) -> None:
        """What `io.BufferedWriter` and `io.TextIOWrapper` call when they are garbage, before they close what they hold:
        only by this can that be told from a `close` of the user's."""
        if not self._open or self._forgotten:
            return
        self._open, self._forgotten = False, True
        if self._engine.process == os.getpid():
            self._engine.drop(self._saving)
            warnings.warn(
                f"{self._uri}: the writer was not closed; what it wrote is given up",
                ResourceWarning,
                stacklevel=2,
                source=source,
            )

    def _check(self) -> None:
        if not self._open:
            raise self._closed()
        if self._engine.process != os.getpid():
            raise BadHandle(
                f"{self._uri}: the file was opened for writing by another process",
                hint="open it after fork, in the process that writes",
            )

    def _end(self) -> None:
        self._open = False
        self._engine.released()
        super().close()


def _flat(data: ReadableBuffer) -> memoryview:
    """The bytes of `data` one after another, copied only if they do not lie that way."""
    view = memoryview(data)
    try:
        return view.cast("B")
    except (TypeError, ValueError):  # not contiguous, or items that memoryview cannot name
        flat: Buffer = view.tobytes()
        return memoryview(flat)


def _raise_ours(failure: OssFuseError | None, shown: BaseException | None) -> None:
    """torch may have put an error of its own in the place of ours."""
    if failure is not None and isinstance(shown, Exception) and not isinstance(shown, OssFuseError):
        raise failure from shown
