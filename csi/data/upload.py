"""One multipart upload: its parts travel in the background, and it ends as a whole object or as nothing.

Promises: after `complete` the object is there with the CRC64 of all its parts combined; after any failure, or `abort`,
no upload is left at OSS (if OSS cannot be reached, `leftovers` sees to it later); the first failure is the one that is
raised, every time; buffers are handed back as soon as their part has arrived or will never be sent. Must not know how
parts are filled.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from csi.data.copied import CopiedRun, checksum_in, checksum_of
from csi.data.leftovers import Leftovers
from csi.data.workers import WorkerPool
from csi.errors import BadHandle, ChecksumMismatch, DeadlineExceeded, FileTooLarge, OssFuseError, ServerFailure
from csi.oss.store import ObjectStore, ObjectVersion, PutResult
from csi.volume.units import Bytes, Crc64, ETag, ObjectKey, Seconds

log = logging.getLogger(__name__)

_PART = 1
"""Priority of every request of an upload: first come, first served."""


@dataclass(frozen=True, slots=True)
class _Arrived:
    etag: ETag
    size: int
    crc64: Crc64 | None  # of a copied range: not known


@dataclass(slots=True, eq=False)
class _Part:
    """One that is under way from when it has a number; `taken` by who carries it out or gives it up, once."""

    buffers: Sequence[memoryview]
    lent: bool
    number: int = 0
    taken: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> bool:
        return self.taken.acquire(blocking=False)


class PartUpload:
    """`_lock` guards every field below it; it is not held across requests or callbacks. It is entered directly, and not
    through `_state`, whose methods are Python: an interruption in one of them would leave it held for ever."""

    def __init__(
        self,
        store: ObjectStore,
        workers: WorkerPool,
        key: ObjectKey,
        *,
        user: Mapping[str, str] | None,
        content_type: str,
        give: Callable[[Sequence[memoryview]], None],
        leftovers: Leftovers,
        patience: Seconds,
    ) -> None:
        self._store = store
        self._leftovers = leftovers
        self._workers = workers
        self._key = key
        self._user = user
        self._content_type = content_type
        self._give = give
        self._patience = patience
        self._lock = threading.RLock()
        self._state = threading.Condition(self._lock)
        self._upload_id: str | None = None
        self._begun = False
        self._waiting: list[Callable[[str], None]] = []  # parts submitted before the upload id is known
        self._arrived: dict[int, _Arrived] = {}
        self._copied: list[CopiedRun] = []  # of the thread that submits
        self._submitted = 0
        self._in_flight = 0
        self._lent = 0  # of those, in memory that no buffer of `give` is
        self._error: OssFuseError | None = None
        self._ending = False  # one thread has taken it upon itself to end the upload
        self._ended = False  # completed, or nothing is left at OSS

    @property
    def submitted(self) -> int:
        """Parts submitted so far; the next one is number `submitted` + 1."""
        return self._submitted

    @property
    def upload_id(self) -> str:
        """As OSS calls it; '' while it is not known."""
        return self._upload_id or ""

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @property
    def error(self) -> OssFuseError | None:
        return self._error

    def submit(self, body: Sequence[memoryview], buffers: Sequence[memoryview]) -> None:
        """Send the next part. `buffers` is what to give back when the bytes of `body` are not needed any more; without
        any, they are lent until `wait_returned`. What is raised here is an interruption: the part was then taken up or
        given up, never lost."""

        def send(number: int, upload_id: str) -> _Arrived:
            part = self._store.upload_part(self._key, upload_id, number, body)
            return _Arrived(part.etag, part.size, part.crc64)

        self._queue(send, buffers, lent=not buffers)

    def copy(self, source: ObjectVersion, offset: int, size: int, *, crc64: Crc64 | None = None) -> None:
        """Make the next part of a range of an object that is there already; `crc64` is that of the whole object."""
        number = self._submitted + 1
        if self._copied and self._copied[-1].goes_on(source, number, offset):
            run = self._copied[-1]
            run.last, run.end = number, offset + size
        else:
            self._copied.append(CopiedRun(source, number, number, offset, offset + size, crc64))

        def send(number: int, upload_id: str) -> _Arrived:
            etag = self._store.upload_part_copy(
                self._key, upload_id, number, source.key, offset, Bytes(size), if_match=source.etag or None
            )
            return _Arrived(etag, size, None)

        self._queue(send, ())

    def wait_returned(self) -> None:
        """Wait until nothing reads from memory that was lent."""
        with self._lock:
            self._state.wait_for(lambda: not self._lent)

    def wait_below(self, count: int) -> None:
        """Wait until fewer than `count` parts are under way, or for a failure, which is not raised here."""
        with self._lock:
            seen = self._workers.succeeded
            while self._in_flight >= count and self._error is None:
                if not self._state.wait(self._patience):
                    if seen == self._workers.succeeded:
                        self._error = DeadlineExceeded(
                            f"{self._key}: no part arrived within {self._patience:g} s",
                            operation="UploadPart",
                            key=self._key,
                            hint="the endpoint does not answer; the log has the requests that failed",
                        )
                    seen = self._workers.succeeded

    def wait_arrived(self) -> None:
        """Wait for every part that was submitted. Raises the first failure."""
        self.wait_below(1)
        self.raise_error()

    def complete(self, *, crc64: bool, forbid_overwrite: bool) -> PutResult:
        """Wait for every part and make the object. With `crc64` its checksum is compared, if it can be known."""
        self.wait_arrived()
        numbers = sorted(self._arrived)
        expected = self._checksum() if crc64 else None
        upload_id = self._upload_id or ""
        try:
            result = self._store.complete_multipart(
                self._key,
                upload_id,
                [(number, self._arrived[number].etag) for number in numbers],
                crc64=expected,
                forbid_overwrite=forbid_overwrite,
            )
        except OssFuseError as error:
            self.fail(error)
            if isinstance(error, ChecksumMismatch):
                size = sum(part.size for part in self._arrived.values())
                remove_damaged(self._store, self._key, size, expected)
            raise
        with self._lock:
            self._ending = self._ended = True
        return result

    def fail(self, error: OssFuseError) -> None:
        """End the upload for this reason (the first one counts): parts not yet sent are not sent, and once those under
        way have ended nothing is left at OSS. Waits for that, but no longer than `patience`."""
        with self._lock:
            if self._ended:
                return
        self._note(error)
        self._end_if_idle()
        with self._lock:
            self._state.wait_for(lambda: self._ended, self._patience)

    def raise_error(self) -> None:
        """Raise the first failure, once nothing is left at OSS."""
        if self._error is not None:
            self.fail(self._error)
            raise self._error.with_traceback(None)

    # --- private ---

    def _queue(
        self, send: Callable[[int, str], _Arrived], buffers: Sequence[memoryview], *, lent: bool = False
    ) -> None:
        part = _Part(buffers, lent)

        def submit(upload_id: str) -> None:
            self._workers.submit(
                lambda: self._carry_out(send, part, upload_id), priority=_PART, dropped=lambda: self._give_up(part)
            )

        try:
            self._register(part, submit)
        except BaseException:  # Ctrl-C of who writes
            if part.number:
                self._give_up(part)
            raise

    def _register(self, part: _Part, submit: Callable[[str], None]) -> None:
        with self._lock:
            number = self._submitted + 1
            self._in_flight, self._lent, self._submitted, part.number = (
                self._in_flight + 1, self._lent + part.lent, number, number,
            )  # fmt: skip
            upload_id = self._upload_id
            if upload_id is None:
                self._waiting.append(submit)
            begin = not self._begun
            self._begun = True
        if upload_id is not None:
            submit(upload_id)
        elif begin:
            self._workers.submit(self._begin, priority=_PART, dropped=lambda: self._began(""))

    def _begin(self) -> bool:
        upload_id = ""
        try:
            upload_id = self._store.initiate_multipart(self._key, user=self._user, content_type=self._content_type)
        except OssFuseError as error:
            self._note(error)
        except BaseException as error:
            self._note(_unforeseen(self._key, error))
            raise
        finally:
            self._began(upload_id)
        return bool(upload_id)

    def _began(self, upload_id: str) -> None:
        """The upload has an id, or ('') never will: then its parts end as soon as they run."""
        with self._lock:
            self._upload_id = upload_id
            waiting, self._waiting = self._waiting, []
        for submit in waiting:
            submit(upload_id)

    def _carry_out(self, send: Callable[[int, str], _Arrived], part: _Part, upload_id: str) -> bool:
        arrived: _Arrived | None = None
        failure: OssFuseError | None = None
        if not part.take():
            return False
        try:
            if not upload_id:
                failure = _unmounting(self._key)
            elif self._error is None:
                arrived = send(part.number, upload_id)
        except OssFuseError as error:
            failure = error.without_frames()
        except BaseException as error:
            failure = _unforeseen(self._key, error)
            raise
        finally:
            self._done(part, arrived, failure)
        return arrived is not None

    def _give_up(self, part: _Part) -> None:
        if part.take():
            self._done(part, None, _unmounting(self._key))

    def _done(self, part: _Part, arrived: _Arrived | None, failure: OssFuseError | None) -> None:
        if failure is not None:
            self._note(failure)
        self._give(part.buffers)
        with self._lock:
            if arrived is not None:
                self._arrived[part.number] = arrived
            self._in_flight, self._lent = self._in_flight - 1, self._lent - part.lent
            self._state.notify_all()
        self._end_if_idle()

    def _note(self, failure: OssFuseError) -> None:
        with self._lock:
            if self._error is None:
                self._error = failure.without_frames()

    def _end_if_idle(self) -> None:
        with self._lock:
            if self._error is None or self._in_flight or self._ending:
                return
            self._ending = True
            upload_id = self._upload_id
        try:
            if upload_id:
                self._store.abort_multipart(self._key, upload_id)
        except OssFuseError as error:
            log.warning("upload %s of %s could not be aborted yet: %s", upload_id, self._key, error)
            self._leftovers.add(self._key, upload_id or "")
        finally:
            with self._lock:
                self._ended = True
                self._state.notify_all()

    def _checksum(self) -> Crc64 | None:
        written = [(number, part.size, part.crc64) for number, part in self._arrived.items() if part.crc64 is not None]
        return checksum_of(written, self._copied, lambda version: checksum_in(self._store, version))


def remove_damaged(store: ObjectStore, key: ObjectKey, size: int, crc64: Crc64 | None) -> None:
    """An object that we made has the wrong checksum: take it away if it is still that one, rather than leave it to be
    read. Never raises."""
    try:
        found = store.head(key)
        if found.size == size and crc64 is not None and found.crc64 not in (None, crc64):
            store.delete(key)
            log.error("%s arrived with a wrong checksum and was deleted", key)
    except OssFuseError as error:
        log.error("%s has a wrong checksum and could not be deleted: %s", key, error)  # noqa: TRY400 - the error is told


def too_large(key: ObjectKey, largest: int) -> FileTooLarge:
    return FileTooLarge(
        f"{key}: more than {largest} bytes need more than 10,000 parts of the size that memory allows",
        hint="raise fs.oss.blocklet.size.mb and fs.jindo.fuse.pod.mem.limit",
    )


def _unmounting(key: ObjectKey) -> OssFuseError:
    return BadHandle(f"{key}: the volume is being unmounted")


def _unforeseen(key: ObjectKey, error: BaseException) -> OssFuseError:
    return ServerFailure(f"{key}: {type(error).__name__} while uploading", key=key)
