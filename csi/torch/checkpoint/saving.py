"""Writes one object from start to end, as `torch.save` does: it appears whole, checked, at `finish`, or not at all.

Written bytes are copied once into buffers of part size, which travel in the background. Of a write larger than all
buffers together, the first parts are sent from where they lie, and the write returns when they have arrived; meanwhile
its last parts are copied, so that there is always something under way. What fits in one part is one PutObject.

Never deadlocks: it waits only for parts of its own, which end within their deadline; when none is under way and there
is no buffer, one more is made beyond the budget. Must not know files.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping

from csi.data.buffers import BufferPool, floor_power
from csi.data.leftovers import Leftovers
from csi.data.plan import SMALLEST_PART, PartPlan
from csi.data.upload import PartUpload, remove_damaged, too_large
from csi.data.workers import WorkerPool
from csi.errors import BadHandle, ChecksumMismatch, OssFuseError
from csi.oss.checksum import crc64_of
from csi.oss.store import ObjectStore, PutResult
from csi.volume.units import ObjectKey, Seconds

_FEWEST_BUFFERS = 4
"""Parts are no larger than the budget over this, so that one fills while others travel."""


class Saving:
    """`_turn` puts callers in order and guards every field but `_free`, which the threads that send parts add to."""

    def __init__(
        self,
        key: ObjectKey,
        store: ObjectStore,
        workers: WorkerPool,
        pool: BufferPool,
        leftovers: Leftovers,
        *,
        part_size: int,
        budget: int,
        patience: Seconds,
        began: Callable[[], None],
        ended: Callable[[Saving], None],
        user: Mapping[str, str] | None = None,
    ) -> None:
        self._key = key
        self._store = store
        self._pool = pool
        self._plan = PartPlan(max(part_size, SMALLEST_PART))
        self._budget = budget
        self._cap = max(SMALLEST_PART, floor_power(max(1, budget // _FEWEST_BUFFERS)))
        self._began = began
        self._on_end = ended
        self._turn = threading.Lock()
        self._buffer: memoryview | None = None
        self._filled = 0
        self._free: deque[memoryview] = deque()
        self._position = 0
        self._result: PutResult | None = None
        self._error: OssFuseError | None = None
        self._over = False
        self._upload = PartUpload(
            store,
            workers,
            key,
            user=user,
            content_type="",
            give=self._free.extend,
            leftovers=leftovers,
            patience=patience,
        )
        self._user = user

    @property
    def position(self) -> int:
        """Bytes accepted so far."""
        return self._position

    @property
    def upload_id(self) -> str:
        """'' while there is none."""
        return self._upload.upload_id

    @property
    def error(self) -> OssFuseError | None:
        return self._error or self._upload.error

    def write(self, data: memoryview) -> None:
        """Take these bytes; nothing reads from `data` when this has returned or raised. A failure of an earlier part is
        raised here, and again by every later call."""
        with self._turn:
            self.check()
            try:
                try:
                    self._accept(data)
                finally:
                    self._settle()
                self.check()
            except BaseException as error:
                self._fail(self._reason(error))
                raise

    def finish(self) -> PutResult:
        """The object is there, whole and with the right CRC64. Idempotent; a failed finish raises the same again."""
        with self._turn:
            if self._result is not None:
                return self._result
            self.check()
            try:
                self._result = self._put() if self._upload.submitted == 0 else self._complete()
            except BaseException as error:
                self._fail(self._reason(error))
                raise
            self._end()
            return self._result

    def abandon(self) -> None:
        """Nothing appears, and no part stays. Idempotent; never raises."""
        with self._turn:
            if not self._over:
                self._fail(BadHandle(f"{self._key}: saving was given up"))

    def check(self) -> None:
        """Raise the failure there was, or BadHandle when this has ended."""
        error = self.error
        if error is not None:
            self._fail(error)
            raise error.with_traceback(None)
        if self._over:
            raise BadHandle(f"{self._key}: the file is closed")

    # --- with the turn held ---

    def _accept(self, data: memoryview) -> None:
        while len(data):
            size = self._part_size()
            if not self._filled and len(data) > self._budget and self._next_size(size) <= len(data):
                self._lend(data[: self._next_size(size)])
                data = data[self._next_size(size) :]
                continue
            if self._buffer is None:
                self._buffer = self._take(size)
            count = min(len(self._buffer) - self._filled, len(data))
            self._buffer[self._filled : self._filled + count] = data[:count]
            self._filled += count
            self._position += count
            data = data[count:]
            if self._filled == len(self._buffer):
                self._send()

    def _part_size(self) -> int:
        """Bytes of the part being filled."""
        size = self._plan.size_of(self._upload.submitted + 1, self._cap)
        if size == 0:
            raise too_large(self._key, self._position)
        return size

    def _next_size(self, size: int) -> int:
        """Bytes of the next part if it need not be in a buffer: not capped by the budget."""
        return max(size, self._plan.size_of(self._upload.submitted + 1, 1 << 40))

    def _take(self, size: int) -> memoryview:
        while True:
            while self._free:
                buffer = self._free.popleft()
                if len(buffer) == size:
                    return buffer
            buffer_or_none = self._pool.try_take(size)
            if buffer_or_none is not None:
                return buffer_or_none
            under_way = self._upload.in_flight
            if not under_way:
                return memoryview(bytearray(size))
            self._upload.wait_below(under_way)
            self.check()

    def _send(self) -> None:
        buffer, filled = self._buffer, self._filled
        self._buffer, self._filled = None, 0
        if buffer is not None:
            self._begin()
            self._upload.submit([buffer[:filled]], [buffer])

    def _lend(self, part: memoryview) -> None:
        self._begin()
        self._position += len(part)
        self._upload.submit([part], ())

    def _begin(self) -> None:
        if self._upload.submitted == 0:
            self._began()

    def _settle(self) -> None:
        """Return when nothing reads from the memory of who writes any more, and not before. An interruption from
        outside (Ctrl-C) ends the upload and is raised then."""
        interruption: BaseException | None = None
        while True:
            try:
                self._upload.wait_returned()
                break
            except BaseException as error:
                interruption = error
                self._fail(self._reason(error))
        if interruption is not None:
            raise interruption

    def _complete(self) -> PutResult:
        if self._filled:
            self._send()
        return self._upload.complete(crc64=True, forbid_overwrite=False)

    def _put(self) -> PutResult:
        body = [self._buffer[: self._filled]] if self._buffer is not None else []
        try:
            return self._store.put(self._key, body, user=self._user, guarded=True)
        except ChecksumMismatch:
            remove_damaged(self._store, self._key, self._filled, crc64_of(body))
            raise

    def _reason(self, error: BaseException) -> OssFuseError:
        """What later calls are told: `error`, or that something from outside, such as Ctrl-C, came in between."""
        return error if isinstance(error, OssFuseError) else BadHandle(f"{self._key}: saving was interrupted")

    def _fail(self, error: OssFuseError) -> None:
        if self._error is None:
            self._error = error.without_frames()
        if not self._over:
            self._upload.fail(error)
            self._end()

    def _end(self) -> None:
        self._over = True
        self._buffer = None
        self._filled = 0
        self._free.clear()
        self._on_end(self)
