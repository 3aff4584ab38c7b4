"""Open directories: a listing that streams from OSS, joined with what is being written here, from any position.

Names come page by page, each exactly once, with the attributes the listing carries, so that `ls -l` costs no request
per file. A file whose name is also a directory is left out (the directory wins), which is why a name is held back until
the listing has passed the place where its directory would be. Names that no file system can show stay hidden.

A position (cookie) is a hash of the name after which to continue. Those given out are kept as 8 bytes a name, the
entries themselves only for the last few thousand: whoever seeks further back gets a new listing that leaves out what
came before the position, so rewinddir(3), seekdir(3) and a directory that is emptied while it is read all work.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

from csi.fs.inodes import Node, stable_hash
from csi.fs.listings import LARGEST
from csi.fs.metadata import DIRECTORY, Facts, facts_of
from csi.fs.names import encode, is_visible, shown
from csi.fs.namespace import Namespace
from csi.fs.turns import Turn
from csi.fs.types import DirectoryEntry
from csi.oss.store import ListedObject, ListPage, ObjectStore

_KEPT = 4096
"""Entries kept for a reader that goes back a little, as the kernel does at the end of its buffer."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """One name of a listing. `facts` None: it is only being written here. `asked`, `at`: of the page it was on."""

    name: bytes
    cookie: int
    facts: Facts | None
    asked: int
    at: float


@dataclass(slots=True)
class Position:
    """One listing under way: `cookies` of all names it gave so far, the last ones of them in `kept`."""

    source: Iterator[Found]
    cookies: array[int] = field(default_factory=lambda: array("q"))
    kept: list[Found] = field(default_factory=list)
    ended: bool = False


class OpenDirectory:
    """`turn`: one step of a listing at a time, requests included; it guards `_position`."""

    def __init__(self, store: ObjectStore, namespace: Namespace, node: Node, *, symlinks: bool) -> None:
        self.node = node
        self._store = store
        self._namespace = namespace
        self._symlinks = symlinks
        self._turn = Turn()
        self._position: Position | None = None

    def read(self, cookie: int) -> Iterator[DirectoryEntry]:
        """The entries after `cookie` (0: a new listing from the start). Each one that is taken counts as told to the
        kernel. Raises what OSS raises."""
        with self._turn:
            position = self._position
            if position is None or cookie == 0:
                position = self._position = Position(self._list())
            index = self._seek(position, cookie)
            if index is None:
                position = self._position = self._relist(position, cookie)
                index = len(position.cookies)
        while True:
            with self._turn:
                found = self._step(position, index)
            if found is None:
                return
            index += 1
            entry = self._entry(found)
            if entry is not None:
                yield entry

    # --- positions ---

    def _seek(self, position: Position, cookie: int) -> int | None:
        """The index of the entry after `cookie`, None if it is not at hand."""
        if cookie == 0:
            return 0
        cookies = position.cookies
        if cookies and cookies[-1] == cookie:
            return len(cookies)
        for back in range(1, len(position.kept) + 1):
            if cookies[-back] == cookie:
                return len(cookies) - back + 1
        return None

    def _relist(self, position: Position, cookie: int) -> Position:
        """A new listing without what came up to `cookie`. A cookie that was never given out here is of another process
        that served this directory before: its place is searched, and if its name is gone, everything is shown."""
        if cookie in position.cookies:
            before = position.cookies[: position.cookies.index(cookie) + 1]
            seen = set(before)
            return Position((found for found in self._list() if found.cookie not in seen), before)
        again = Position(self._list())
        while (found := self._step(again, len(again.cookies))) is not None:
            if found.cookie == cookie:
                return again
        return Position(self._list())

    def _step(self, position: Position, index: int) -> Found | None:
        """The entry at `index`, taken from the source if it is the next one."""
        kept_from = len(position.cookies) - len(position.kept)
        if kept_from <= index < len(position.cookies):
            return position.kept[index - kept_from]
        try:
            found = None if position.ended else next(position.source, None)
        except BaseException:
            # a generator that raised is spent, and must not be taken for the end of the directory
            seen = set(position.cookies)
            position.source = (again for again in self._list() if again.cookie not in seen)
            raise
        if found is None:
            position.ended = True
            found = self._unlisted(position)
            if found is None:
                return None
        position.cookies.append(found.cookie)
        position.kept.append(found)
        if len(position.kept) > 2 * _KEPT:
            del position.kept[:_KEPT]
        return found

    def _unlisted(self, position: Position) -> Found | None:
        """A file that is being written here and that OSS does not know yet."""
        with self._namespace.table.lock:
            for name, child in (self.node.children or {}).items():
                if child.draft is not None:
                    cookie = stable_hash(name)
                    if cookie not in position.cookies:
                        return Found(name, cookie, None, 0, 0.0)
        return None

    def _entry(self, found: Found) -> DirectoryEntry | None:
        with self._namespace.table.lock:
            if found.facts is None:
                node = self._namespace.table.child(self.node, found.name)
                if node is not None:
                    node.lookups += 1
            else:
                node = self._namespace.learned(self.node, found.name, found.facts, found.asked, found.at, count=True)
            if node is None:
                return None
            return DirectoryEntry(found.name, self._namespace.shown.entry(node), found.cookie)

    # --- listing ---

    def _list(self) -> Iterator[Found]:
        kept = self._namespace.kept_listing(self.node)
        if kept is not None:
            for name, facts in kept.names.items():
                yield Found(name, stable_hash(name), facts, kept.asked, kept.at)
            return
        names: dict[bytes, Facts] = {}
        asked = self._namespace.serial()
        at = self._namespace.clock()
        for found in self._ask():
            if len(names) <= LARGEST:
                assert found.facts is not None  # noqa: S101 - _ask gives facts
                names[found.name] = found.facts
            yield found
        if len(names) <= LARGEST:
            self._namespace.keep_listing(self.node, names, asked, at)

    def _ask(self) -> Iterator[Found]:
        """Every visible name once, directories before files of the same name."""
        prefix = self._namespace.table.key(self.node)
        start = len(encode(prefix))
        waiting: list[Found] = []  # each name is the beginning of the next one
        last_directory = b""
        pages = self._store.list_all(prefix, delimiter="/")
        while True:
            asked, at = self._namespace.serial(), self._namespace.clock()
            page = next(pages, None)
            if page is None:
                break
            for name, listed in _in_order(page, start):
                while waiting and waiting[-1].name + b"/" < name:
                    yield waiting.pop()
                if listed is None:
                    directory = name[:-1]
                    if waiting and waiting[-1].name == directory:
                        _log.info("the file %s is hidden by the directory of the same name", shown(directory))
                        waiting.pop()
                    if directory != last_directory and is_visible(directory):
                        last_directory = directory
                        yield Found(directory, stable_hash(directory), DIRECTORY, asked, at)
                elif not name:
                    self._namespace.table.local(self.node).has_marker = True
                elif is_visible(name):
                    facts = facts_of(listed, symlinks=self._symlinks)
                    waiting.append(Found(name, stable_hash(name), facts, asked, at))
        while waiting:
            yield waiting.pop()


def _in_order(page: ListPage, start: int) -> list[tuple[bytes, ListedObject | None]]:
    """Objects and common prefixes of a page in the order of their keys, without the first `start` bytes; a prefix has
    no object and ends with '/'."""
    objects: list[tuple[bytes, ListedObject | None]] = [(encode(found.key)[start:], found) for found in page.objects]
    if not page.prefixes:
        return objects
    objects.extend((encode(prefix)[start:], None) for prefix in page.prefixes)
    objects.sort(key=lambda pair: pair[0])
    return objects
