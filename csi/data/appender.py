"""A file written by AppendObject: what was pushed can be read while the file is still being written.

Bytes are copied into buffers; a buffer that is full, a flush, or the flush interval pushes everything filled so far by
one request, one at a time, each at the position the one before ended. While a push is under way the next buffers fill,
so pushes grow by themselves when the network is slower than the writer. The object exists from the moment it is
opened. Nobody else may append meanwhile: OSS refuses a wrong position, and the writer learns it at its next call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from csi.data.staging import StagingMemory
from csi.data.streams import Tail, WriterStatistics
from csi.data.workers import WorkerPool
from csi.errors import (
    AppendConflict,
    BadHandle,
    ChecksumMismatch,
    DeadlineExceeded,
    FileTooLarge,
    OssFuseError,
    ServerFailure,
)
from csi.oss.checksum import EMPTY, combine, crc64_of
from csi.oss.store import AppendResult, Buffer, ObjectStore, ObjectVersion, PutResult
from csi.volume.units import GIB, Bytes, Crc64, ETag, ObjectKey, Seconds

LARGEST_APPENDABLE = 5 * GIB
_MOST_BUFFERS = 64


class AppendWriter:
    """A `Writer` (csi/data/streams.py).

    `_turn` puts callers in order, guards `_position` and may span a wait; `_state` guards the rest and is not held
    across requests. `_turn` comes first.
    """

    def __init__(
        self,
        key: ObjectKey,
        store: ObjectStore,
        workers: WorkerPool,
        memory: StagingMemory,
        *,
        position: int,
        buffer_size: int,
        content_type: str,
        crc64: bool,
        patience: Seconds,
        admission: Seconds,
        closed: Callable[[AppendWriter], None],
    ) -> None:
        self.tail: Tail | None = None
        self._key = key
        self._store = store
        self._workers = workers
        self._content_type = content_type
        self._compares = crc64
        self._patience = patience
        self._on_close = closed
        self._turn = threading.Lock()
        self._state = threading.Condition()
        self._position = position
        self._pushed = position  # OSS has everything before this
        self._buffers: list[tuple[memoryview, int]] = []  # what is to be pushed next: buffers, and how much is filled
        self._pushing = False
        self._error: OssFuseError | None = None
        self._over = False
        self._result: PutResult | None = None
        self._allotment = memory.admit(self.push, admission)
        self._room = min(buffer_size, self._allotment.buffer)
        self._allotment.most = max(_MOST_BUFFERS * self._allotment.buffer, 2 * buffer_size)
        self._threshold = buffer_size
        try:
            self._etag, self._crc64 = self._begin(position)
        except BaseException:
            self._allotment.close()
            raise

    @property
    def position(self) -> int:
        return self._position

    @property
    def visible_version(self) -> ObjectVersion | None:
        with self._state:
            return ObjectVersion(self._key, self._etag, Bytes(self._pushed))

    def lend(self) -> None:
        """Nothing: what is appended is pushed while it comes."""

    def write(self, data: Buffer) -> None:
        view = memoryview(data).cast("B")
        with self._turn:
            self._check()
            if self._position + len(view) > LARGEST_APPENDABLE:
                raise FileTooLarge(
                    f"{self._key}: a file in append mode holds at most 5 GiB",
                    hint="unset fs.oss.append.enable to write larger files",
                )
            taken = 0
            while taken < len(view):
                taken += self._copy(view[taken:])

    def copy(self, source: ObjectVersion, offset: int, size: int) -> bool:
        return False  # AppendObject copies nothing

    def keep(self) -> None:
        """Nothing: what was sent is read like any object."""

    @property
    def readable_from(self) -> int:
        return self._position  # what is asked for is pushed

    def reread(self, offset: int, size: int) -> Buffer | None:
        return None

    def flush(self) -> None:
        with self._turn:
            self._check()
            self._push_all()

    def finish(self) -> PutResult:
        with self._turn:
            if self._result is None:
                self._check()
                self._push_all()
                with self._state:
                    self._result = PutResult(self._etag, self._crc64)
                self._end()
            return self._result

    def abandon(self) -> None:
        with self._turn, self._state:
            self._error = self._error or BadHandle(f"{self._key}: writing was given up")
            self._state.wait_for(lambda: not self._pushing, self._patience)
        self._end()

    def statistics(self) -> WriterStatistics:
        with self._state:
            return WriterStatistics(self._filled(), int(self._pushing))

    def push(self) -> None:
        """Begin to push what is filled, without waiting for it."""
        with self._state:
            if self._pushing or self._over or self._error is not None or not self._filled():
                return
            self._pushing = True
        self._workers.submit(self._push, priority=0, dropped=self._dropped)

    # --- private ---

    def _begin(self, position: int) -> tuple[ETag, Crc64 | None]:
        """Make the object, or see that it is what the caller thinks it is."""
        if position == 0:
            made = self._store.append(self._key, 0, [], content_type=self._content_type)
            return made.etag, made.crc64
        found = self._store.head(self._key)
        if found.size != position or found.type != "Appendable":
            conflict = AppendConflict(
                f"{self._key}: {found.type} object of {found.size} bytes cannot be appended to at {position}",
                key=self._key,
                hint="the object was replaced or appended to by somebody else; open the file again",
            )
            conflict.next_position = found.next_append_position
            raise conflict
        return found.etag, found.crc64

    def _copy(self, data: memoryview) -> int:
        """Copy the beginning of `data` into the last buffer; returns how much fitted."""
        while True:
            with self._state:
                if self._buffers:
                    buffer, filled = self._buffers[-1]
                    count = min(self._room - filled, len(data))
                    if count > 0:
                        buffer[filled : filled + count] = data[:count]
                        self._buffers[-1] = (buffer, filled + count)
                        self._position += count
                        enough = self._filled() >= self._threshold
                        break
            self._more()
        if enough:
            self.push()
        return count

    def _more(self) -> None:
        buffer = self._allotment.take()
        if buffer is not None:
            with self._state:
                self._buffers.append((buffer, 0))
            return
        self.push()
        self._wait()

    def _push_all(self) -> None:
        while self._pushed < self._position:
            self.push()
            self._wait()

    def _wait(self) -> None:
        """Wait for the push that is under way, and raise if it failed."""
        with self._state:
            if not self._state.wait_for(lambda: not self._pushing or self._error is not None, self._patience):
                self._error = DeadlineExceeded(
                    f"{self._key}: nothing was appended within {self._patience:g} s",
                    operation="AppendObject",
                    key=self._key,
                    hint="the endpoint does not answer; the log has the requests that failed",
                )
        self._check()

    def _filled(self) -> int:
        return sum(filled for _, filled in self._buffers)

    def _push(self) -> bool:
        """On a thread of `workers`: append everything filled until now."""
        with self._state:
            buffers, self._buffers = self._buffers, []
            position = self._pushed
        failure: OssFuseError | None = None
        try:
            body = [buffer[:filled] for buffer, filled in buffers]
            done = self._store.append(self._key, position, body, content_type=self._content_type)
            self._compare(done, position, body)
            with self._state:
                self._etag, self._crc64, self._pushed = done.etag, done.crc64, done.next_position
        except OssFuseError as error:
            failure = error.without_frames()
        except BaseException as error:
            failure = ServerFailure(f"{self._key}: {type(error).__name__} while appending", key=self._key)
            raise
        finally:
            self._pushed_or_failed(buffers, failure)
        return failure is None

    def _compare(self, done: AppendResult, position: int, body: list[memoryview]) -> None:
        """Raises ChecksumMismatch. What arrived damaged stays: OSS cuts nothing off an Appendable object."""
        before = self._crc64 if position else EMPTY
        if not self._compares or before is None or done.crc64 is None:
            return
        size = sum(map(len, body))
        expected = combine(before, crc64_of(body), size)
        if done.crc64 != expected:
            raise ChecksumMismatch(
                f"{self._key}: the CRC64 of what OSS stored is {done.crc64}, expected {expected}",
                operation="AppendObject",
                key=self._key,
                hint=f"{size} bytes from {position} on were damaged on the way; the file has to be made anew",
            )

    def _dropped(self) -> None:
        self._pushed_or_failed([], BadHandle(f"{self._key}: the volume is being unmounted"))

    def _pushed_or_failed(self, buffers: list[tuple[memoryview, int]], failure: OssFuseError | None) -> None:
        self._allotment.give(buffer for buffer, _ in buffers)
        with self._state:
            self._error = self._error or failure
            self._pushing = False
            again = failure is None and self._filled() >= self._threshold
            self._state.notify_all()
        if again:
            self.push()

    def _check(self) -> None:
        with self._state:
            error = self._error
        if error is not None:
            self._end()
            raise error.with_traceback(None)
        if self._over:
            raise BadHandle(f"{self._key}: this file is finished")

    def _end(self) -> None:
        with self._state:
            if self._over:
                return
            self._over = True
            buffers, self._buffers = self._buffers, []
        self._allotment.give(buffer for buffer, _ in buffers)
        self._allotment.close()
        self._on_close(self)
