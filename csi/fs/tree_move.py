"""Everything below one prefix moves below another: what renaming a directory is in OSS, which knows no directories.

Every key is copied first, a few at a time; only when every copy is there is a source deleted. Other clients may be
writing meanwhile. So the sources are listed a second time, page by page as they are deleted: what was made or changed
since its copy is copied before its page goes, and what another client wrote in that time is lost only between a page of
that listing and its deletion. After a failure those copies are removed that still are what this move made of them.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from typing import Final, NamedTuple

from csi.errors import NameTooLong, ObjectNotFound, OssFuseError, PreconditionFailed, ServerFailure
from csi.fs.metadata import SYMLINK_TYPE
from csi.fs.names import KEY_MAX, encode
from csi.oss.store import ListedObject, ObjectStore
from csi.volume.units import ETag, ObjectKey

COPIES: Final = 16
"""Made at a time."""
_TRIES: Final = 3

_log = logging.getLogger(__name__)


class Moved(NamedTuple):
    """Which version of an object was copied, and the ETag of the copy."""

    source: ETag
    copy: ETag


class TreeMove:
    """One move of what is below `old` to `new`, both of which end in '/'. For one thread; copies are made on `threads`.

    A directory may hold millions of objects: of each, the key and two numbers are kept."""

    def __init__(
        self, store: ObjectStore, threads: Executor, old: ObjectKey, new: ObjectKey, wanted: Collection[str]
    ) -> None:
        """`wanted`: the keys of which `moved` is to tell."""
        self._store = store
        self._threads = threads
        self._old = old
        self._new = new
        self._wanted = wanted
        self._growth = len(encode(new)) - len(encode(old))
        self._keys: list[ObjectKey] = []  # as listed: in the order of their bytes
        self._sources = array("q")  # of each, the hash of the ETag that was copied
        self._copies = array("q")  # and that of the copy, 0 where it is not known to be there
        self.moved: dict[str, Moved] = {}

    def copy(self, *, keep_marker: bool) -> bool:
        """Copy everything; False: there is nothing. After a failure no copy is left, except (`keep_marker`) the marker
        of a directory that was there before. Raises NameTooLong and what OSS raises."""
        running: dict[Future[Moved | None], int] = {}
        try:
            for page in self._store.list_all(self._old):
                for found in page.objects:
                    running[self._threads.submit(self._copy, found, self._target(found.key))] = len(self._keys)
                    self._keys.append(found.key)
                    self._sources.append(hash(found.etag))
                    self._copies.append(0)
                    if len(running) >= 2 * COPIES:
                        self._collect(running)
            while running:
                self._collect(running)
        except OssFuseError:
            wait(running)
            for future, index in running.items():
                if future.exception() is None:
                    self._note(index, future.result())
            self._withdraw(keep_marker=keep_marker)
            raise
        return any(self._copies)

    def delete(self) -> None:
        """Delete the sources, and copy before what was made or changed since. Raises ServerFailure when some could not
        be deleted, and what OSS raises: both names then hold the data."""
        at = 0
        for page in self._store.list_all(self._old):
            late = []
            for found in page.objects:
                while at < len(self._keys) and encode(self._keys[at]) < encode(found.key):
                    at += 1
                if at == len(self._keys) or self._keys[at] != found.key or self._sources[at] != hash(found.etag):
                    late.append(found)
            for found, moved in zip(late, self._threads.map(self._copy_late, late), strict=True):
                self.moved.pop(found.key, None)
                if moved is not None and found.key in self._wanted:
                    self.moved[found.key] = moved
            self._delete([found.key for found in page.objects])

    # --- private ---

    def _target(self, key: ObjectKey) -> ObjectKey:
        if len(encode(key)) + self._growth > KEY_MAX:
            raise NameTooLong(
                f"{key!r} would have a key of more than {KEY_MAX} bytes", hint="move it to a shorter name first"
            )
        return ObjectKey(self._new + key[len(self._old) :])

    def _copy(self, found: ListedObject, target: ObjectKey) -> Moved | None:
        """None: another client has removed it."""
        etag, size, kind = found.etag, found.size, found.type
        for _ in range(_TRIES):
            try:
                if kind == SYMLINK_TYPE:
                    self._store.put_symlink(target, self._store.get_symlink(found.key))
                    return Moved(etag, etag)
                return Moved(etag, self._store.copy(found.key, target, size=size, if_match=etag or None).etag)
            except ObjectNotFound:
                return None
            except PreconditionFailed as error:  # another client has changed it
                changed = error
            try:
                now = self._store.head(found.key)
            except ObjectNotFound:
                return None
            etag, size, kind = now.etag, now.size, now.type
        raise changed

    def _copy_late(self, found: ListedObject) -> Moved | None:
        return self._copy(found, self._target(found.key))

    def _collect(self, running: dict[Future[Moved | None], int]) -> None:
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            self._note(running[future], future.result())
            del running[future]

    def _note(self, index: int, moved: Moved | None) -> None:
        if moved is None:
            return
        self._sources[index], self._copies[index] = hash(moved.source), hash(moved.copy) or 1
        if self._keys[index] in self._wanted:
            self.moved[self._keys[index]] = moved

    def _delete(self, keys: Sequence[ObjectKey]) -> None:
        failures = self._store.delete_many(keys)
        if failures:
            first = failures[0]
            raise ServerFailure(
                f"everything was copied, but {len(failures)} old objects could not be deleted, "
                f"the first is {first.key!r}: {first.message}",
                code=first.code,
                operation="DeleteMultipleObjects",
                key=first.key,
                hint="both names hold the data now; remove the old one",
            )

    def _withdraw(self, *, keep_marker: bool) -> None:
        try:
            for keys in self._own_copies(keep_marker=keep_marker):
                self._delete(keys)
        except OssFuseError as error:
            _log.warning("copies of a rename that failed are left behind: %s", error)

    def _own_copies(self, *, keep_marker: bool) -> Iterator[list[ObjectKey]]:
        """A copy whose answer was lost has the ETag of its source, or is left behind."""
        made = {self._target(key): index for index, key in enumerate(self._keys)}
        for page in self._store.list_all(self._new) if made else ():
            own = []
            for found in page.objects:
                index = made.get(found.key)
                if index is None or (keep_marker and found.key == self._new):
                    continue
                if hash(found.etag) in (self._copies[index], self._sources[index]):
                    own.append(found.key)
                else:
                    _log.warning("%r was written by another client while a rename failed: it stays", found.key)
            yield own
