"""`torch.distributed.checkpoint` in a bucket: storage writers and readers for `dcp.save`, `async_save` and `load`.

    files = OssDCPFileSystem(endpoint, cred_path=cred_path, config_path=config_path)
    dcp.save(state_dict, storage_writer=files.writer("oss://bucket/step-100"))
    dcp.load(state_dict, storage_reader=files.reader("oss://bucket/step-100"))

A checkpoint is there when its `.metadata` is, which is written last and replaces an older one in one step. A save over
an existing checkpoint writes files of other names and removes the old ones when it is complete, so that a save that was
interrupted leaves the old checkpoint as it was.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch.distributed.checkpoint.filesystem import (
    FileSystemBase,
    FileSystemReader,
    FileSystemWriter,
    _StoragePrefix,
)

from csi.errors import CheckpointIncomplete, CrossVolume, InvalidOption, ObjectNotFound, OssFuseError
from csi.oss.store import ObjectStore
from csi.torch.checkpoint import CheckpointReader, CheckpointStore, CheckpointWriter
from csi.torch.uri import ObjectUri, parse_object

_log = logging.getLogger(__name__)

_METADATA = ".metadata"
_DATA = ".distcp"
_UNFINISHED = ".tmp"

AnyPath = str | os.PathLike[str]


class OssDCPFileSystem(CheckpointStore, FileSystemBase):  # type: ignore[misc]
    """What torch's storage writers and readers ask of a file system."""

    def writer(self, path: AnyPath, **options: Any) -> OssStorageWriter:
        """For `dcp.save(…, storage_writer=…)`; `options` are those of torch's `FileSystemWriter`."""
        return OssStorageWriter(self, path, **options)

    def reader(self, path: AnyPath) -> OssStorageReader:
        """For `dcp.load(…, storage_reader=…)`."""
        return OssStorageReader(self, path)

    # --- FileSystemBase ---

    @contextmanager
    def create_stream(self, path: AnyPath, mode: str) -> Iterator[CheckpointReader | CheckpointWriter]:
        """Open for "rb" or "wb". What is written appears when the block ends, unless it raises."""
        if mode not in ("rb", "wb"):
            raise InvalidOption("mode", mode, "'rb' or 'wb'")
        address = _text(path)
        with self._files.reader(address) if mode == "rb" else self._files.writer(address) as stream:
            yield stream

    def concat_path(self, path: AnyPath, suffix: str) -> str:
        return f"{_text(path).rstrip('/')}/{suffix}"

    def init_path(self, path: AnyPath) -> str:
        return _text(path)

    def mkdir(self, path: AnyPath) -> None:
        """A bucket has no directories."""

    def exists(self, path: AnyPath) -> bool:
        """Whether there is such an object; an error, such as a missing right, is not an answer and is raised."""
        uri, store = self._located(path)
        try:
            store.head(uri.key)
        except ObjectNotFound:
            return False
        return True

    def rename(self, path: AnyPath, new_path: AnyPath) -> None:
        """A copy inside OSS, then the removal of the old object."""
        old, store = self._located(path)
        new, _ = self._located(new_path)
        if old.place != new.place:
            raise CrossVolume(f"cannot rename {old} to {new}: they are in different buckets")
        found = store.head(old.key)
        store.copy(old.key, new.key, size=found.size, if_match=found.etag or None)
        store.delete(old.key)

    def rm_file(self, path: AnyPath) -> None:
        uri, store = self._located(path)
        store.delete(uri.key)

    def ls(self, path: AnyPath) -> list[str]:
        """The objects directly below."""
        uri, store = self._located(self.concat_path(path, "-"))
        prefix = uri.key[:-1]
        return [
            self.concat_path(path, found.key[len(prefix) :])
            for page in store.list_all(prefix, delimiter="/")
            for found in page.objects
            if len(found.key) > len(prefix)
        ]

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: AnyPath) -> bool:
        try:
            parse_object(_text(checkpoint_id))
        except OssFuseError:
            return False
        return True

    def _located(self, path: AnyPath) -> tuple[ObjectUri, ObjectStore]:
        uri = parse_object(_text(path))
        return uri, self._files.connection.store(uri.place)


class OssStorageWriter(FileSystemWriter):  # type: ignore[misc]
    """Torch's writer of a file for each rank, with the promises of this module."""

    def __init__(self, fs: OssDCPFileSystem, path: AnyPath, **options: Any) -> None:
        super().__init__(path, **{**options, "sync_files": False})
        self.fs: FileSystemBase = fs
        self.path = fs.init_path(path)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: AnyPath) -> bool:
        return OssDCPFileSystem.validate_checkpoint_id(checkpoint_id)

    def prepare_global_plan(self, plans: list[Any]) -> list[Any]:
        """Called on one rank, which names the files of all; after torch, which before 2.9 keeps no name it is given."""
        prepared: list[Any] = super().prepare_global_plan(plans)
        if not self.fs.exists(self.fs.concat_path(self.path, _METADATA)):
            return prepared
        mark = self.save_id.replace("-", "")[:12]
        return [
            replace(plan, storage_data=_StoragePrefix(f"__{mark}_{rank}_")) if given.storage_data is None else plan
            for rank, (given, plan) in enumerate(zip(plans, prepared, strict=True))
        ]

    def write_data(self, plan: Any, planner: Any) -> Any:
        """Raises also what went wrong in a thread, which torch does not tell: the file would be missing."""
        watched = _Watched(self.fs)
        self.fs = watched
        try:
            written = super().write_data(plan, planner)
        finally:
            self.fs = watched.inner
        if watched.failure is not None:
            raise watched.failure
        return written

    def finish(self, metadata: Any, results: list[list[Any]]) -> None:
        """Called on one rank when all have written."""
        inner = self.fs
        self.fs = _AtOnce(inner)
        try:
            super().finish(metadata, results)
        finally:
            self.fs = inner
        if getattr(self, "use_collectives", True):
            self._remove_unused({written.storage_data.relative_path for each in results for written in each})

    def _remove_unused(self, used: set[str]) -> None:
        """Files of the checkpoint that this one replaces, or of a save that was interrupted. The new one is whole
        anyway."""
        try:
            for path in self.fs.ls(self.path):
                name = path.rpartition("/")[2]
                if name.startswith("__") and name.endswith(_DATA) and name not in used:
                    self.fs.rm_file(path)
        except OssFuseError as error:
            _log.warning("files that the checkpoint %s no longer uses are left behind: %s", self.path, error)


class OssStorageReader(FileSystemReader):  # type: ignore[misc]
    """Torch's reader: each rank reads what it needs, by ranges."""

    def __init__(self, fs: OssDCPFileSystem, path: AnyPath) -> None:
        super().__init__(path)
        self.fs = fs
        self.path = fs.init_path(path)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: AnyPath) -> bool:
        return OssDCPFileSystem.validate_checkpoint_id(checkpoint_id)

    def read_metadata(self, *arguments: Any, **options: Any) -> Any:
        try:
            return super().read_metadata(*arguments, **options)
        except ObjectNotFound as error:
            raise CheckpointIncomplete(
                f"{self.path} holds no checkpoint: it has no {_METADATA}",
                hint="its save has not ended, or was interrupted; load an earlier one",
            ) from error


class _Delegating(FileSystemBase):  # type: ignore[misc]
    """Another file system, but for what subclasses do otherwise."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    @contextmanager
    def create_stream(self, path: AnyPath, mode: str) -> Iterator[Any]:
        with self.inner.create_stream(path, mode) as stream:
            yield stream

    def concat_path(self, path: AnyPath, suffix: str) -> AnyPath:
        joined: AnyPath = self.inner.concat_path(path, suffix)
        return joined

    def init_path(self, path: AnyPath) -> AnyPath:
        made: AnyPath = self.inner.init_path(path)
        return made

    def rename(self, path: AnyPath, new_path: AnyPath) -> None:
        self.inner.rename(path, new_path)

    def mkdir(self, path: AnyPath) -> None:
        self.inner.mkdir(path)

    def exists(self, path: AnyPath) -> bool:
        return bool(self.inner.exists(path))

    def rm_file(self, path: AnyPath) -> None:
        self.inner.rm_file(path)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: AnyPath) -> bool:
        return OssDCPFileSystem.validate_checkpoint_id(checkpoint_id)


class _Watched(_Delegating):
    """Remembers the first error of a stream, in whichever thread. `_lock` guards `failure`."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self._lock = threading.Lock()
        self.failure: BaseException | None = None

    @contextmanager
    def create_stream(self, path: AnyPath, mode: str) -> Iterator[Any]:
        try:
            with self.inner.create_stream(path, mode) as stream:
                yield stream
        except BaseException as error:
            with self._lock:
                self.failure = self.failure or error
            raise


class _AtOnce(_Delegating):
    """For who writes `X.tmp`, removes X and renames `X.tmp` to it: X is replaced at once, as an object is anyway."""

    @contextmanager
    def create_stream(self, path: AnyPath, mode: str) -> Iterator[Any]:
        with self.inner.create_stream(_text(path).removesuffix(_UNFINISHED), mode) as stream:
            yield stream

    def exists(self, path: AnyPath) -> bool:
        return False

    def rename(self, path: AnyPath, new_path: AnyPath) -> None:
        if _text(path) != _text(new_path) + _UNFINISHED:
            super().rename(path, new_path)


def _text(path: AnyPath) -> str:
    """An address, also one that went through `pathlib`, which makes one slash of two."""
    text = os.fspath(path)
    return f"oss://{text[5:]}" if text.startswith("oss:/") and not text.startswith("oss://") else text
