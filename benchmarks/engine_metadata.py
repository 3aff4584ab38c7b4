"""What a name costs: the metadata engine without FUSE and without a network.

Listings come as the XML that OSS writes, from memory, so that what is measured is parsing, inodes, entries and nothing
else. Prints, for one directory and for a tree of prefixes, entries a second of CPU, requests, and resident bytes an
entry; with `--profile` where the time goes.

    python -m benchmarks.engine_metadata [--entries 100000] [--prefixes 10000] [--each 100] [--profile]
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import os
import pstats
import time
from collections.abc import Callable, Iterator
from typing import Any, cast
from urllib.parse import quote

from csi.fs.filesystem import Filesystem
from csi.fs.types import ROOT_INODE, DirectoryEntry
from csi.oss.listing import parse_page
from csi.oss.store import ListPage, ObjectStore
from csi.volume.spec import MountArguments
from csi.volume.units import InodeNumber, Seconds

_PAGE = 1000
_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult>\n<EncodingType>url</EncodingType>\n'
_OBJECT = (
    "<Contents><Key>{key}</Key><LastModified>2026-11-{day:02}T08:{minute:02}:20.000Z</LastModified>"
    "<ETag>&quot;{etag:032X}&quot;</ETag><Type>Normal</Type><Size>{size}</Size><StorageClass>Standard</StorageClass>"
    "<Owner><ID>1234567890123456</ID><DisplayName>1234567890123456</DisplayName></Owner></Contents>\n"
)


class ListedBucket:
    """The listing side of an `ObjectStore`: `flat/` with files, `tree/` with prefixes of files below them."""

    def __init__(self, entries: int, prefixes: int, each: int) -> None:
        self.requests = 0
        self._flat = [
            _page([_object(f"flat/{number:08}", number) for number in numbers], numbers.stop < entries, numbers.stop)
            for numbers in _slices(entries)
        ]
        self._tree = [
            _page([_prefix(f"tree/{number:06}/") for number in numbers], numbers.stop < prefixes, numbers.stop)
            for numbers in _slices(prefixes)
        ]
        self._leaf = _page([_object(f"tree/@@@@@@/{number:06}", number) for number in range(each)], more=False, after=0)
        self._root = _page([_prefix("flat/"), _prefix("tree/")], more=False, after=0)

    def list_page(
        self, prefix: str, *, delimiter: str = "", token: str = "", start_after: str = "", max_keys: int = _PAGE
    ) -> ListPage:
        self.requests += 1
        if prefix in ("", "flat", "tree", "flat/", "tree/"):
            pages = {"flat/": self._flat, "tree/": self._tree}.get(prefix, [self._root])
            return parse_page(pages[int(token or 0) // _PAGE])
        return parse_page(self._leaf.replace(b"@@@@@@", prefix.split("/")[1].encode()))

    def list_all(self, prefix: str, *, delimiter: str = "", start_after: str = "") -> Iterator[ListPage]:
        token = ""
        while True:
            page = self.list_page(prefix, delimiter=delimiter, token=token)
            yield page
            token = page.next_token
            if not token:
                return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=100_000, help="files in one directory")
    parser.add_argument("--prefixes", type=int, default=10_000, help="directories of the tree")
    parser.add_argument("--each", type=int, default=100, help="files in each of them")
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    options = parser.parse_args()
    gc.set_threshold(20_000)  # as in a sidecar
    bucket = ListedBucket(options.entries, options.prefixes, options.each)
    _report("parsing alone", bucket, lambda: _parse(bucket, "flat/"), profile=options.profile)
    _report("ls -l of one directory", bucket, lambda: _list_one(_mount(bucket)), profile=options.profile)
    _report("names of one directory", bucket, lambda: _names(_mount(bucket)), profile=options.profile)
    _report("find in a tree", bucket, lambda: _find(_mount(bucket)), profile=options.profile)


# --- private ---


def _mount(bucket: ListedBucket) -> Filesystem:
    arguments = MountArguments(attr_timeout=Seconds(3.0), entry_timeout=Seconds(0.0), negative_timeout=Seconds(0.0))
    return Filesystem(cast("ObjectStore", bucket), cast("Any", None), arguments=arguments)


def _parse(bucket: ListedBucket, prefix: str) -> tuple[int, object]:
    return sum(len(page.objects) for page in bucket.list_all(prefix)), None


def _list_one(filesystem: Filesystem) -> tuple[int, object]:
    directory = filesystem.lookup(ROOT_INODE, b"flat").attributes.inode
    return sum(1 for _ in _entries(filesystem, directory)), filesystem


def _find(filesystem: Filesystem) -> tuple[int, object]:
    """As find(1) walks: one directory after the other, in the order of the listing, told by our own kernel session."""
    top = filesystem.lookup(ROOT_INODE, b"tree").attributes.inode
    count = 0
    handle = filesystem.opendir(top)
    for found in filesystem.scan(handle, 0, plus=True):
        count += 1
        if isinstance(found, DirectoryEntry):
            below = filesystem.opendir(found.entry.attributes.inode)
            count += sum(1 for _ in filesystem.scan(below, 0, plus=True))
            filesystem.releasedir(below)
    filesystem.releasedir(handle)
    return count, filesystem


def _names(filesystem: Filesystem) -> tuple[int, object]:
    """As ls(1) without options: names alone."""
    directory = filesystem.lookup(ROOT_INODE, b"flat").attributes.inode
    handle = filesystem.opendir(directory)
    count = sum(1 for _ in filesystem.scan(handle, 0, plus=False))
    filesystem.releasedir(handle)
    return count, filesystem


def _entries(filesystem: Filesystem, directory: InodeNumber) -> Iterator[DirectoryEntry]:
    handle = filesystem.opendir(directory)
    yield from filesystem.readdir(handle, 0)
    filesystem.releasedir(handle)


def _report(what: str, bucket: ListedBucket, work: Callable[[], tuple[int, object]], *, profile: bool) -> None:
    gc.collect()
    requests, resident, started = bucket.requests, _resident(), time.process_time()
    profiler = cProfile.Profile()
    if profile:
        profiler.enable()
    count, kept = work()
    profiler.disable()
    seconds = time.process_time() - started
    grown = _resident() - resident
    print(
        f"{what:24} {count:9} entries {count / seconds:10.0f} /CPU-s {seconds / count * 1e6:7.2f} us/entry "
        f"{bucket.requests - requests:7} requests {grown / count:7.0f} bytes/entry, {grown / 1e6:.0f} MB"
    )
    if profile:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(25)
    del kept


def _resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _slices(count: int) -> list[range]:
    return [range(start, min(start + _PAGE, count)) for start in range(0, count, _PAGE)]


def _object(key: str, number: int) -> str:
    etag = (number + 1) * 0x9E3779B97F4A7C15F39CC0605CEDC835 % (1 << 128)
    return _OBJECT.format(
        key=quote(key, safe="@"), day=number // 60 % 28 + 1, minute=number % 60, etag=etag, size=number * 17 % 100_000
    )


def _prefix(key: str) -> str:
    return f"<CommonPrefixes><Prefix>{quote(key, safe='')}</Prefix></CommonPrefixes>\n"


def _page(entries: list[str], more: bool, after: int) -> bytes:
    token = f"<NextContinuationToken>{after}</NextContinuationToken>" if more else ""
    truncated = f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}\n"
    return f"{_HEAD}{truncated}{''.join(entries)}</ListBucketResult>".encode()


if __name__ == "__main__":
    main()
