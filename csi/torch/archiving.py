"""Making tar archives and their indexes from directories and prefixes, on this machine or in OSS.

An archive appears whole or not at all, with its index after it. Members are fetched many at a time and written in the
order of their names, so that the same source gives the same archive.
"""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final, NoReturn

from csi.data.engine import DataEngine
from csi.data.ledger import MemoryLedger
from csi.errors import InvalidOption, ManifestMalformed
from csi.torch import sources
from csi.torch.archives import BLOCK, encode_index
from csi.torch.catalogue import Entry
from csi.torch.connection import Connection, connect
from csi.torch.fetching import Fetcher
from csi.torch.pipeline import stream
from csi.torch.samples import OssObject
from csi.torch.uri import ObjectUri, parse_object, parse_prefix
from csi.volume.spec import ReadOptions, WriteOptions
from csi.volume.units import MIB, Bytes

_PIECE: Final = 1 * MIB
_MEMORY: Final = Bytes(256 * MIB)
_END: Final = bytes(2 * BLOCK)

Write = Callable[[bytes], object]


def generate_tar_archive(
    endpoint: str,
    cred_path: str,
    config_path: str,
    tar_path: str,
    index_path: str,
    source_path: str,
    index_only: bool = False,
    cred_provider: object | None = None,
    region: str = "",
) -> int:
    """Make `tar_path` of all files below `source_path`, and its index `index_path`; returns how many members there are.

    Each path is one on this machine or an oss:// address. With `index_only` the archive is there already, and
    `source_path` is not looked at. Names in the archive are relative to the source. Raises InvalidOption,
    ManifestMalformed for an archive that is none, a StoreError, OSError.
    """
    connection = connect(
        endpoint, cred_path=cred_path, cred_provider=cred_provider, config_path=config_path, region=region
    )
    try:
        if index_only:
            starts, end = _indexed(tar_path, connection)
        else:
            with _written(tar_path, connection) as write:
                starts, end = _archived(source_path, write, connection)
        with _written(index_path, connection) as write:
            write(encode_index(starts, end))
    finally:
        connection.close()
    return len(starts)


def _archived(source: str, write: Write, connection: Connection) -> tuple[list[int], int]:
    starts: list[int] = []
    position = 0
    for name, size, pieces in _files_of(source, connection):
        starts.append(position)
        member = tarfile.TarInfo(name)
        member.size = size
        header = member.tobuf(tarfile.GNU_FORMAT, errors="surrogateescape")
        write(header)
        came = 0
        for piece in pieces:
            write(piece)
            came += len(piece)
        if came != size:
            raise ManifestMalformed(
                f"{source}: {name} had {size} bytes, then {came}", path=source, hint="it changed while it was archived"
            )
        padding = -size % BLOCK
        write(bytes(padding))
        position += len(header) + size + padding
    if not starts:
        raise InvalidOption("source_path", source, "a directory or a prefix with files in it")
    write(_END)
    return starts, position


def _files_of(source: str, connection: Connection) -> Iterator[tuple[str, int, Iterator[bytes]]]:
    """Name, size and content of each file."""
    if source.startswith("oss://"):
        prefix = parse_prefix(source).key
        samples = sources.listed(source, connection)
        fetcher = Fetcher(connection)
        try:
            for slot in stream(fetcher, iter(samples)):
                with OssObject(slot.entry, fetcher, slot.fetched, slot.error) as sample:
                    name = sample.name[len(prefix) :].lstrip("/") or os.path.basename(sample.name)
                    yield name, sample.size, _pieces(sample)
        finally:
            fetcher.close()
        return
    for directory, below, files in os.walk(source, onerror=_refuse) if os.path.isdir(source) else ():
        below.sort()
        for file in sorted(files):
            path = os.path.join(directory, file)
            if os.path.isfile(path):
                with open(path, "rb") as opened:
                    yield os.path.relpath(path, source), os.fstat(opened.fileno()).st_size, _pieces(opened)


def _refuse(error: OSError) -> NoReturn:
    """An archive without what could not be listed would not be whole."""
    raise error


def _pieces(opened: Any) -> Iterator[bytes]:
    while piece := opened.read(_PIECE):
        yield piece


def _indexed(path: str, connection: Connection) -> tuple[list[int], int]:
    """Where the members of an archive begin, and where the last one ends."""
    starts: list[int] = []
    end = 0
    with ExitStack() as closing:
        if path.startswith("oss://"):
            where = parse_object(path)
            found = connection.store(where.place).head(where.key)
            entry = Entry(where.place, where.key, found.size, found.etag)
            opened: Any = closing.enter_context(sources.opened(entry, connection))
        else:
            opened = closing.enter_context(open(path, "rb"))
        try:
            archive = closing.enter_context(tarfile.open(fileobj=opened, mode="r:", errors="surrogateescape"))
            for member in archive:
                if member.isreg():
                    starts.append(member.offset)
                    end = member.offset_data + member.size + -member.size % BLOCK
                archive.members = []  # type: ignore[attr-defined] # it would keep them all
        except tarfile.TarError as error:
            raise ManifestMalformed(f"{path} is not a tar archive: {error}", path=path) from None
    if not starts:
        raise ManifestMalformed(f"{path} has no regular file in it", path=path)
    return starts, end


@contextmanager
def _written(path: str, connection: Connection) -> Iterator[Write]:
    """Write a file or an object that appears when the block ends, unless it ends with an error."""
    if path.startswith("oss://"):
        with _object(parse_object(path), connection) as write:
            yield write
        return
    directory = os.path.dirname(os.path.abspath(path))
    descriptor, name = tempfile.mkstemp(dir=directory, prefix=".ossfuse-")
    try:
        with open(descriptor, "wb") as file:
            yield file.write
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


@contextmanager
def _object(uri: ObjectUri, connection: Connection) -> Iterator[Write]:
    options = connection.configuration.checkpoint
    write_options = WriteOptions(threads=min(options.upload_concurrency, 16), part_size=options.part_size)
    ledger = MemoryLedger(_MEMORY)
    engine = DataEngine(connection.store(uri.place), read=ReadOptions(), write=write_options, ledger=ledger)
    try:
        writer = engine.open_writer(uri.key)
        try:
            yield writer.write
        except BaseException:
            writer.abandon()
            raise
        writer.finish()
    finally:
        engine.close()
