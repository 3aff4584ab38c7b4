"""A file written from its start, or from the end of what is there, to an object that appears whole when it is done.

Written bytes are copied once, into buffers of the writer's allotment; full parts upload in the background while the
writer goes on. Room in the part being filled is lent to who puts bytes there without us (`lend`): every call takes it
back first, and counts what is there. What fits in one part is one PutObject. Continuing an existing object: what fits
in one buffer is read back, anything larger becomes parts by a copy inside OSS, both bound to the version that was
opened, and just before the object is replaced it is asked whether it is still that version. What a small object was
continued to stays in memory as if it had been read: logs are opened, continued and closed once a line.

Never deadlocks: while a part is under way its end brings buffers back; when none is, everything this writer holds is
in the part being filled, which is then sent early (a buffer is always enough for a part OSS accepts). It follows that
parts get smaller when memory is short, and a file may then end with FileTooLarge before 1 TiB (`plan.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from csi.data.blocks import BlockCache
from csi.data.filling import Filling
from csi.data.leftovers import Leftovers
from csi.data.pattern import WHOLE
from csi.data.plan import LARGEST_PART, MOST_PARTS, SMALLEST_PART, PartPlan, copied_ranges
from csi.data.staging import Allotment, StagingMemory
from csi.data.streams import Tail, WriterStatistics
from csi.data.upload import PartUpload, remove_damaged, too_large
from csi.data.workers import WorkerPool
from csi.errors import (
    BadHandle,
    ChecksumMismatch,
    FileTooLarge,
    ObjectNotFound,
    OssFuseError,
    PreconditionFailed,
)
from csi.oss.checksum import crc64_of
from csi.oss.store import Buffer, ObjectMetadata, ObjectStore, ObjectVersion, PutResult
from csi.volume.units import MIB, Bytes, ObjectKey, Seconds

_AHEAD = 4 * MIB
"""Of room that is lent: so much is written without us before there is more to do than to copy."""

_COPIED_PART = 256 * MIB
"""Ranges copied from another object are cut into parts of this size, which OSS copies side by side."""


class PartWriter:
    """A `Writer` (csi/data/streams.py).

    `_turn` puts the callers of one file in order, as POSIX does with an inode lock; it guards every field and may span
    requests, because nothing but calls for this file ever waits for it (`_send` only tries it). Who reads what was not
    sent yet does without it.
    """

    def __init__(
        self,
        key: ObjectKey,
        store: ObjectStore,
        workers: WorkerPool,
        memory: StagingMemory,
        plan: PartPlan,
        *,
        base: ObjectVersion | None,
        user: Mapping[str, str] | None,
        content_type: str,
        forbid_overwrite: bool,
        crc64: bool,
        parallel: int,
        leftovers: Leftovers,
        patience: Seconds,
        admission: Seconds,
        closed: Callable[[PartWriter], None],
        cache: BlockCache,
        tail: Tail | None = None,
    ) -> None:
        self._key = key
        self._store = store
        self._plan = plan
        self._base = base if base is not None and base.size else None
        self._replaces = base
        self._user = user
        self._content_type = content_type
        self._forbid_overwrite = forbid_overwrite
        self._crc64 = crc64
        self._on_close = closed
        self._cache = cache
        self._turn = threading.Lock()
        self._position = int(base.size) if base is not None else 0
        self._touched = base is None
        self.tail = tail
        self._filled = 0
        self._result: PutResult | None = None
        self._error: OssFuseError | None = None
        self._over = False
        self._allotment: Allotment = memory.admit(self._send, admission)
        self._allotment.most = max(plan.first, self._allotment.buffer) * (parallel + 2)
        self._part = Filling(self._allotment, self._position)
        self._upload = PartUpload(
            store,
            workers,
            key,
            user=user,
            content_type=content_type,
            give=self._part.give,
            leftovers=leftovers,
            patience=patience,
        )

    @property
    def position(self) -> int:
        return self._position if self.tail is None else max(self._position, self.tail.position)

    @property
    def visible_version(self) -> ObjectVersion | None:
        result = self._result
        return None if result is None else ObjectVersion(self._key, result.etag, Bytes(self._position))

    def write(self, data: Buffer) -> None:
        view = memoryview(data).cast("B")
        with self._turn:
            self._enter()
            try:
                if not self._touched:
                    self._resume()
                self._fill(view)
            except OssFuseError as error:
                self._fail(error)
                raise

    def lend(self) -> None:
        with self._turn:
            self._reclaim()
            if self.tail is None or self._over or self._upload.error is not None or not self._touched:
                return
            try:
                left = self._target() - self._filled
            except FileTooLarge:  # the next write says so
                return
            room = self._room(left)
            wanted = min(left, _AHEAD, self._position // 4 or 1)  # a small file has no use for more than its buffer
            while sum(map(len, room)) < wanted and (buffer := self._allotment.take()) is not None:
                self._part.buffers.append(buffer)
                room = self._room(left)
            if room:
                self.tail.lend(self._position, room)

    def copy(self, source: ObjectVersion, offset: int, size: int) -> bool:
        with self._turn:
            self._enter()
            if size < SMALLEST_PART or size > MOST_PARTS * _COPIED_PART:
                return False
            try:
                if not self._touched:
                    self._resume()
                if 0 < self._filled < SMALLEST_PART:
                    return False  # OSS takes a smaller part only as the last one
                if self._filled:
                    self._send_part()
                for start, count in copied_ranges(size, _COPIED_PART):
                    if self._upload.submitted >= MOST_PARTS - 1:
                        raise too_large(self._key, self._position)
                    self._upload.copy(source, offset + start, count)
                self._position += size
                self._part.start(self._position)
            except OssFuseError as error:
                self._fail(error)
                raise
            return True

    def keep(self) -> None:
        self._part.keep()

    @property
    def readable_from(self) -> int:
        return self._part.readable_from

    def reread(self, offset: int, size: int) -> Buffer | None:
        end = self._position if self.tail is None else max(self._position, self.tail.recall())
        return self._part.read(offset, max(0, min(size, end - offset)))

    def flush(self) -> None:
        with self._turn:
            self._enter()

    def finish(self) -> PutResult:
        with self._turn:
            if self._result is not None:
                return self._result
            self._enter()
            try:
                self._result = self._finish()
            except OssFuseError as error:
                self._fail(error)
                raise
            self._end()
            return self._result

    def abandon(self) -> None:
        with self._turn:
            if not self._over:
                self._fail(BadHandle(f"{self._key}: writing was given up"))

    def statistics(self) -> WriterStatistics:
        return WriterStatistics(self._filled + self.position - self._position, self._upload.in_flight)

    # --- with the turn held ---

    def _enter(self) -> None:
        self._reclaim()
        self._check()

    def _check(self) -> None:
        if self._error is None and self._upload.error is not None:
            self._fail(self._upload.error)
        if self._error is not None:
            raise self._error.with_traceback(None)
        if self._over:
            raise BadHandle(f"{self._key}: this file is finished")

    def _reclaim(self) -> None:
        """What was put into the part without us is ours, and nothing more is put there."""
        if self.tail is not None:
            put = max(0, self.tail.recall() - self._position)
            self._filled += put
            self._position += put

    def _room(self, size: int) -> list[memoryview]:
        """Where the next bytes of this part belong, at most `size` of them."""
        return self._part.memory(self._filled, size)

    def _fill(self, data: memoryview) -> None:
        taken = 0
        while taken < len(data):
            room = min(self._target() - self._filled, self._tail_room())
            if room <= 0:
                if self._filled >= self._target():
                    self._send_part()
                else:
                    self._more()
                continue
            count = min(room, len(data) - taken)
            full, offset = divmod(self._filled, self._allotment.buffer)
            count = min(count, self._allotment.buffer - offset)
            self._part.buffers[full][offset : offset + count] = data[taken : taken + count]
            self._filled += count
            self._position += count
            taken += count

    def _target(self) -> int:
        """Bytes of the part being filled. A third of the share: one part is filled while two travel."""
        cap = self._allotment.share // 3
        cap = max(cap - cap % self._allotment.buffer, self._allotment.buffer)
        size = self._plan.size_of(self._upload.submitted + 1, cap)
        if size == 0:
            raise too_large(self._key, self._position)
        self._allotment.most = max(self._allotment.most, 3 * size)  # one being filled, two travelling
        return size

    def _tail_room(self) -> int:
        return len(self._part.buffers) * self._allotment.buffer - self._filled

    def _more(self) -> None:
        """Get one more buffer: from the allotment, from a part that arrives, or by sending this part early."""
        upload = self._upload
        under_way = upload.in_flight  # before `take`: of a part that ends in between, the buffers are there by then
        while (buffer := self._allotment.take()) is None:
            if self._part.forget_sent():
                pass
            elif under_way:
                upload.wait_below(under_way)
                self._check()
            else:
                self._send_part()
            under_way = upload.in_flight
        self._part.buffers.append(buffer)

    def _send_part(self) -> None:
        filled, self._filled = self._filled, 0
        body, buffers = self._part.body(filled), self._part.take(filled)
        self._upload.submit(body, buffers)

    def _send(self) -> None:
        """Somebody waits for memory: keep one buffer, if nobody is writing at this moment."""
        if not self._turn.acquire(blocking=False):
            return
        try:
            if self._over:
                return
            self._reclaim()
            self._part.give_spare(self._filled)
            buffers = self._part.buffers
            if len(buffers) > 1:
                self._send_part()
            elif buffers and (own := self._allotment.take_own()) is not None:
                own[: self._filled] = buffers[0][: self._filled]
                self._part.replace([own])
                self._allotment.give(buffers)
        finally:
            self._turn.release()

    def _resume(self) -> None:
        """Take over what the object held when it was opened."""
        base = self._base
        self._touched = True
        if base is None:
            return
        if base.size <= self._allotment.buffer:
            self._more()
            target = self._part.buffers[-1][: base.size]
            if not self._cache.copy(base, target):
                _, size = self._store.read_whole(base.key, target, if_match=base.etag or None)
                if size != base.size:
                    raise _replaced(base)
            self._filled = int(base.size)
            self._part.start(0)
            return
        crc = None
        if self._crc64:
            crc = self._expect(base).crc64
        ranges = copied_ranges(base.size)
        if ranges[0][1] > LARGEST_PART:
            raise too_large(self._key, LARGEST_PART * len(ranges))
        for offset, size in ranges:
            self._upload.copy(base, offset, size, crc64=crc)

    def _finish(self) -> PutResult:
        if not self._touched and self._replaces is not None:
            return PutResult(self._replaces.etag, None)  # nothing was written: the object is what it was
        in_parts = self._upload.submitted > 0
        if in_parts and self._filled:
            self._upload.submit(self._part.body(self._filled), self._part.keep_last(self._filled))
        if self._replaces is not None:
            self._upload.wait_arrived()
            # OSS takes no condition for what an object replaces: only what another client writes from here on is lost
            self._expect(self._replaces)
        if not in_parts:
            made = self._put()
            if self._replaces is not None and self._position <= WHOLE:  # who continues one probably does it again
                version = ObjectVersion(self._key, made.etag, Bytes(self._position))
                self._cache.keep(version, self._part.body(self._filled))
            return made
        return self._upload.complete(crc64=self._crc64, forbid_overwrite=self._forbid_overwrite)

    def _expect(self, version: ObjectVersion) -> ObjectMetadata:
        """What OSS knows of the object, which must still be this version."""
        try:
            found = self._store.head(version.key)
        except ObjectNotFound:
            raise _replaced(version) from None
        if found.size != version.size or (version.etag and found.etag != version.etag):
            raise _replaced(version)
        return found

    def _put(self) -> PutResult:
        try:
            return self._store.put(
                self._key,
                self._part.body(self._filled),
                user=self._user,
                content_type=self._content_type,
                forbid_overwrite=self._forbid_overwrite,
            )
        except ChecksumMismatch:
            remove_damaged(self._store, self._key, self._filled, crc64_of(self._part.body(self._filled)))
            raise

    def _fail(self, error: OssFuseError) -> None:
        if self._error is None:
            self._error = error.without_frames()
        if not self._over:
            self._upload.fail(error)
            self._end()

    def _end(self) -> None:
        if self.tail is not None:
            self.tail.recall()
            self.tail.hide()
        self._over = True
        self._part.end(self._position)
        self._filled = 0
        self._allotment.close()
        self._on_close(self)


def _replaced(base: ObjectVersion) -> PreconditionFailed:
    return PreconditionFailed(
        f"{base.key}: another client replaced or deleted the object since it was opened",
        status=412,
        key=base.key,
        hint="open the file again",
    )
