"""Where the samples of a data set come from: a prefix, a list of addresses, a manifest.

The first two are looked at once, by the process that makes the data set. A manifest can be looked at once as well, or
be read as a stream by everybody who needs it, in memory that does not grow with it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from csi.errors import InvalidOption
from csi.torch.archives import TarSamples, decode_index
from csi.torch.catalogue import Entry, Samples
from csi.torch.connection import Connection
from csi.torch.fetching import Fetcher
from csi.torch.manifests import Parser, Streamed, entries, open_local
from csi.torch.samples import OssObject
from csi.torch.uri import parse_object, parse_place, parse_prefix, split_uri

_log = logging.getLogger(__name__)


def listed(uri: str, connection: Connection) -> Samples:
    """All objects below a prefix, in the order of their keys, but for the empty ones that stand for directories.

    Raises InvalidOption, or a StoreError: PermissionDenied when listing is not allowed, BucketNotFound.
    """
    where = parse_prefix(uri)
    samples = Samples()
    add, place = samples.add, where.place
    for page in connection.store(place).list_all(where.key):
        for found in page.objects:
            if found.key.endswith("/") and not found.size:
                continue
            if found.type == "Symlink":  # the size and the ETag are the link's, not those of what it leads to
                add(place, found.key)
            else:
                add(place, found.key, found.size, found.etag)
    _log.info("%s: %d objects listed", where, len(samples))
    if not samples:
        _log.warning("%s: no object has a key that begins like this; the data set is empty", where)
    return samples


def named(uris: str | Iterable[str]) -> Samples:
    """The objects of these addresses, in their order. Asks nobody. Raises InvalidOption."""
    samples = Samples()
    for uri in [uris] if isinstance(uris, str) else uris:
        authority, key = split_uri(uri)
        samples.add(parse_place(authority), key or parse_object(uri).key)
    if not samples:
        raise InvalidOption.stating("object_uris", "object_uris names no object")
    return samples


def archived(tar_uri: str, tar_index_uri: str, connection: Connection) -> TarSamples:
    """The members of a tar archive, in its order, found by its index: two requests, whatever their number.

    Raises InvalidOption, ManifestMalformed for an index that is none or belongs to another archive, a StoreError.
    """
    archive, index = parse_object(tar_uri), parse_object(tar_index_uri)
    found = connection.store(archive.place).head(archive.key)
    with opened(Entry(index.place, index.key), connection) as sample:
        places = decode_index(sample.read(), str(index))
    samples = TarSamples(archive.place, found.version, places)
    _log.info("%s: %d members", archive, len(samples))
    return samples


@contextmanager
def opened(entry: Entry, connection: Connection) -> Iterator[OssObject]:
    """An object by itself, fetched by threads and connections that end with the block."""
    with closing(Fetcher(connection)) as fetcher, OssObject(entry, fetcher) as sample:
        yield sample


@dataclass(frozen=True)
class Manifest:
    """`path` on this machine, or an oss:// address; `base` is put before each key."""

    path: str
    parser: Parser
    base: str

    def __post_init__(self) -> None:
        if not self.path:
            raise InvalidOption.stating("manifest_file_path", "manifest_file_path is empty")
        if not callable(self.parser):
            raise InvalidOption("manifest_parser", self.parser, "a callable that takes a reader")

    def stream(self, connection: Connection) -> Iterator[Entry]:
        """Its entries, read anew. Raises ManifestMalformed, or a StoreError."""
        if not self.path.startswith("oss://"):
            yield from entries(self.path, open_local(self.path), self.parser, self.base)
            return
        where = parse_object(self.path)
        with opened(Entry(where.place, where.key), connection) as sample:
            yield from entries(self.path, Streamed(sample), self.parser, self.base)

    def samples(self, connection: Connection) -> Samples:
        """Its entries, in flat memory."""
        samples = Samples()
        add = samples.add
        for entry in self.stream(connection):
            add(entry.place, entry.key, label=entry.label)
        _log.info("%s: %d entries in %d bytes", self.path, len(samples), samples.memory)
        return samples
