"""The least data engine there can be over an object store: no cache, no read-ahead, no threads.

Tests of the filesystem run over it first, so that what they find is the filesystem's.
"""

from __future__ import annotations

from collections.abc import Mapping

from csi.errors import BadHandle
from csi.oss.store import Buffer, ObjectStore, ObjectVersion, PutResult
from csi.volume.units import Bytes, ObjectKey


class MemoryReader:
    def __init__(self, store: ObjectStore, version: ObjectVersion) -> None:
        self.version = version
        self.closed = False
        self.notice = 0
        self._store = store
        self._data: bytes | None = None

    def try_read(self, offset: int, size: int) -> Buffer | None:
        return self._data[offset : offset + size] if self._data is not None else None

    def read(self, offset: int, size: int) -> Buffer:
        if self.closed:
            raise BadHandle("the reader is closed")
        target = bytearray(max(0, min(size, self.version.size - offset)))
        if target:
            self._store.read_into(self.version.key, offset, memoryview(target), if_match=self.version.etag)
        return bytes(target)

    def publish(self) -> int | None:
        return None

    def file(self) -> tuple[int, int] | None:
        return None

    def reached(self, offset: int, end: int) -> int:
        return 0

    def close(self) -> None:
        self.closed = True


class MemoryWriter:
    def __init__(self, engine: MemoryEngine, key: ObjectKey, base: ObjectVersion | None, options: dict) -> None:
        self.key = key
        self.visible_version: ObjectVersion | None = None
        self.tail = None
        self._engine = engine
        self._base = base
        self._options = options
        self._data = bytearray()
        self._result: PutResult | None = None
        self._error: BaseException | None = None
        self.abandoned = False

    @property
    def position(self) -> int:
        return (self._base.size if self._base else 0) + len(self._data)

    def write(self, data: Buffer) -> None:
        if self._error:
            raise self._error
        assert self._result is None and not self.abandoned
        self._data += data

    def lend(self) -> None: ...

    def copy(self, source: ObjectVersion, offset: int, size: int) -> bool:
        return False

    def keep(self) -> None: ...

    @property
    def readable_from(self) -> int:
        return self._base.size if self._base else 0

    def reread(self, offset: int, size: int) -> Buffer | None:
        begin = offset - self.readable_from
        return bytes(self._data[begin : begin + size]) if begin >= 0 else None

    def flush(self) -> None:
        if self._error:
            raise self._error

    def finish(self) -> PutResult:
        if self._error:
            raise self._error
        if self._result is None:
            try:
                before = b""
                if self._base is not None:
                    reader = MemoryReader(self._engine.store, self._base)
                    before = bytes(reader.read(0, self._base.size))
                self._result = self._engine.store.put(self.key, [before, bytes(self._data)], **self._options)
            except BaseException as error:
                self._error = error
                raise
            finally:
                self._engine.writers.discard(self)
        return self._result

    def abandon(self) -> None:
        self.abandoned = True
        self._engine.writers.discard(self)


class MemoryAppender:
    def __init__(self, engine: MemoryEngine, key: ObjectKey, position: int) -> None:
        self.key = key
        self._engine = engine
        self._pending = bytearray()
        self._pushed = position
        self._etag = None
        self._error: BaseException | None = None
        self._result: PutResult | None = None
        self.tail = None
        if position == 0:
            self._push()

    @property
    def position(self) -> int:
        return self._pushed + len(self._pending)

    @property
    def visible_version(self) -> ObjectVersion | None:
        return None if self._etag is None else ObjectVersion(self.key, self._etag, Bytes(self._pushed))

    def write(self, data: Buffer) -> None:
        if self._error:
            raise self._error
        self._pending += data

    def lend(self) -> None: ...

    def copy(self, source: ObjectVersion, offset: int, size: int) -> bool:
        return False

    def keep(self) -> None: ...

    @property
    def readable_from(self) -> int:
        return self.position

    def reread(self, offset: int, size: int) -> Buffer | None:
        return None

    def flush(self) -> None:
        if self._error:
            raise self._error
        if self._pending:
            self._push()

    def finish(self) -> PutResult:
        if self._result is None:
            self.flush()
            self._engine.writers.discard(self)
            head = self._engine.store.head(self.key)
            self._result = PutResult(head.etag, head.crc64)
        return self._result

    def abandon(self) -> None:
        self._pending.clear()
        self._engine.writers.discard(self)

    def _push(self) -> None:
        try:
            result = self._engine.store.append(self.key, self._pushed, [bytes(self._pending)])
        except BaseException as error:
            self._error = error
            raise
        self._pushed, self._etag = result.next_position, result.etag
        self._pending.clear()


class MemoryScratch:
    most = 1 << 30

    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, offset: int, data: Buffer) -> bool:
        self._data += bytes(max(0, offset - len(self._data)))
        self._data[offset : offset + len(memoryview(data))] = data
        return True

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self._data[offset : offset + size])

    def resize(self, size: int) -> bool:
        self._data[size:] = bytes(max(0, size - len(self._data)))
        return True

    def close(self) -> None: ...


class MemoryEngine:
    """`writers` are those that are neither finished nor abandoned."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.writers: set[MemoryWriter | MemoryAppender] = set()
        self.prefetched: list[ObjectVersion] = []
        self.answers_at_once = False

    def gains_ahead(self, size: Bytes) -> bool:
        return not self.answers_at_once

    def prefetch(self, version: ObjectVersion) -> bool:
        self.prefetched.append(version)
        return True

    def open_reader(self, version: ObjectVersion, *, exact: bool = False) -> MemoryReader:
        return MemoryReader(self.store, version)

    def open_writer(
        self,
        key: ObjectKey,
        *,
        base: ObjectVersion | None = None,
        user: Mapping[str, str] | None = None,
        content_type: str = "",
        forbid_overwrite: bool = False,
    ) -> MemoryWriter:
        options = {"user": user, "content_type": content_type, "forbid_overwrite": forbid_overwrite}
        writer = MemoryWriter(self, key, base, options)
        self.writers.add(writer)
        return writer

    def open_appender(self, key: ObjectKey, *, position: int) -> MemoryAppender:
        appender = MemoryAppender(self, key, position)
        self.writers.add(appender)
        return appender

    def open_scratch(self) -> MemoryScratch:
        return MemoryScratch()
