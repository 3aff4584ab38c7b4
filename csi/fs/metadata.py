"""What a listing tells about a name: the facts behind stat(2), and the one request that finds them.

A name can be a file (the object `a`), a directory (anything that starts with `a/`) or both; then the directory wins.
One LIST with delimiter answers that and carries size, ETag and time: HEAD is only for what no listing has. This module
asks and remembers nothing.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from csi.errors import ObjectNotFound, PermissionDenied, RequestRejected
from csi.fs.names import KEY_MAX, LAST, decode, encode
from csi.fs.types import FileKind
from csi.oss.store import ListedObject, ListPage, ObjectMetadata, ObjectStore, ObjectVersion
from csi.volume.units import Bytes, ETag, ObjectKey

SYMLINK_TYPE = "Symlink"
APPENDABLE_TYPE = "Appendable"

_NEIGHBOURS = 32
"""Keys asked for when one name is looked up: those that sort between `a` and `a/` (`a-1`, `a.txt`) come first."""

_NOT_FOLLOWED = (ObjectNotFound, RequestRejected, PermissionDenied)
"""What OSS says to HEAD of a Symlink that leads nowhere, to another Symlink, to what may not be read."""


class Facts(NamedTuple):
    """One state of one name. A directory has no size, ETag and time of its own. `modified` is in whole seconds.
    `renewed` makes another value of the same content, which open files take for news. (A tuple: there is one a name.)
    """

    kind: FileKind
    size: int = 0
    etag: ETag = ETag("")
    modified: float = 0.0
    type: str = ""
    storage_class: str = ""

    @property
    def is_directory(self) -> bool:
        return self.kind is FileKind.DIRECTORY

    @property
    def is_unfollowed(self) -> bool:
        """A Symlink that is shown as a file, and of which only the link itself is known: what it leads to was not asked
        for, or cannot be read."""
        return self.type == SYMLINK_TYPE and not self.etag and self.kind is FileKind.FILE

    def version(self, key: ObjectKey) -> ObjectVersion:
        return ObjectVersion(key, self.etag, Bytes(self.size))

    @property
    def mtime_ns(self) -> int:
        """Last-Modified has seconds only; the ETag fills the nanoseconds, so that the kernel notices two versions of
        one second (it compares mtime and size to decide whether cached pages are still good)."""
        return int(self.modified) * 1_000_000_000 + zlib.crc32(self.etag.encode()) % 1_000_000_000


DIRECTORY = Facts(FileKind.DIRECTORY)


def renewed(facts: Facts) -> Facts:
    """The same facts as another value, so that open files look at their node again."""
    return Facts(*facts)


def facts_of(found: ListedObject | ObjectMetadata, *, symlinks: bool) -> Facts:
    """`symlinks` False (-ono_symlink): a Symlink object is shown as the file it leads to, which only HEAD tells."""
    kind, size, etag = FileKind.FILE, found.size, found.etag
    if found.type == SYMLINK_TYPE:
        if symlinks:
            kind = FileKind.SYMLINK
        elif isinstance(found, ListedObject):
            size, etag = Bytes(0), ETag("")
    return Facts(
        kind,
        size,
        etag,
        float(int(found.modified)),
        sys.intern(found.type),
        sys.intern(found.storage_class),
    )


def ask(store: ObjectStore, key: ObjectKey, *, symlinks: bool) -> Facts | None:
    """What is at `key`: one LIST; a second one only when more than 32 siblings sort between file and directory; a HEAD
    only for a symlink that is shown as a file, which is unfollowed if OSS cannot follow it. Raises StoreError."""
    directory = f"{key}/"
    page = store.list_page(key, delimiter="/", max_keys=_NEIGHBOURS)
    if directory in page.prefixes:
        return DIRECTORY
    if page.next_token and not _reaches(page.objects, page.prefixes, directory):
        below = store.list_page(directory, max_keys=1)
        if below.objects:
            return DIRECTORY
    if not page.objects or page.objects[0].key != key:
        return None
    found = page.objects[0]
    if found.type == SYMLINK_TYPE and not symlinks:
        try:
            return facts_of(store.head(key), symlinks=False)
        except _NOT_FOLLOWED:  # the name is there all the same, to be renamed and removed
            pass
    return facts_of(found, symlinks=symlinks)


def ask_from(
    store: ObjectStore, directory: str, after: bytes, count: int, *, symlinks: bool
) -> tuple[dict[bytes, Facts], Callable[[bytes], bool]]:
    """What one LIST tells about `count` names of the directory whose keys begin with `directory`: those that come
    first after `after`, a key without `directory`; and whether it shows that a name after it, not told, is not there.

    Left out is what a page cannot tell: whether its last file is a directory too, and what a symlink that is shown as
    a file leads to. Raises StoreError.
    """
    start_after = directory + decode(after)
    if len(encode(start_after)) > KEY_MAX:  # OSS refuses to be asked; so it tells a little more
        start_after = start_after.removesuffix(LAST)
    page = store.list_page(directory, delimiter="/", start_after=start_after, max_keys=count + 1)
    return _tell(page, directory, symlinks=symlinks)


def ask_about(
    store: ObjectStore, directory: str, names: Collection[bytes], *, symlinks: bool
) -> dict[bytes, Facts | None]:
    """What one LIST tells about several names of the directory whose keys begin with `directory`; None of one that is
    not there.

    Left out is what a page cannot tell (`ask_from`), and names that lie far behind the first one. Raises StoreError.
    """
    before = decode(min(names))[:-1]  # sorts before the first one, and what lies between begins as that does
    count = 2 * len(names) + _NEIGHBOURS
    page = store.list_page(directory, delimiter="/", start_after=directory + before, max_keys=count)
    told, reaches = _tell(page, directory, symlinks=symlinks)
    return {name: told.get(name) for name in names if name in told or reaches(name)}


def _tell(page: ListPage, directory: str, *, symlinks: bool) -> tuple[dict[bytes, Facts], Callable[[bytes], bool]]:
    """The names of a page, and whether it shows that a name which is not among them is not there."""
    start = len(encode(directory))
    files = [(encode(found.key)[start:], found) for found in page.objects]
    directories = [encode(prefix)[start:-1] for prefix in page.prefixes]
    last = max([b"", *(name for name, _ in files[-1:]), *(name + b"/" for name in directories[-1:])])
    led = {name for name, found in files if found.type == SYMLINK_TYPE and not symlinks}

    def reaches(name: bytes) -> bool:
        return name not in led and (not page.next_token or name + b"/" < last)

    told = {name: facts_of(found, symlinks=symlinks) for name, found in files if reaches(name)}
    told.update(dict.fromkeys(directories, DIRECTORY))
    return told, reaches


def _reaches(objects: Sequence[ListedObject], prefixes: Sequence[ObjectKey], directory: str) -> bool:
    """Whether a page went past `directory` in key order, so that its absence means something."""
    limit = directory.encode("utf-8", "surrogateescape")
    keys = [entry.key for entry in objects[-1:]] + list(prefixes[-1:])
    return any(key.encode("utf-8", "surrogateescape") > limit for key in keys)
