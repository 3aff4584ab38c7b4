"""Open directories: a listing that streams from OSS, joined with what is being written here, from any position.

Names come page by page, each exactly once, with the attributes the listing carries, so that `ls -l` costs no request
per file. A file whose name is also a directory is left out (the directory wins), which is why a name is held back until
the listing has passed the place where its directory would be. Names that no file system can show stay hidden.

A position (cookie) is a hash of the name after which to continue. Those given out are kept as 8 bytes a name, the
entries themselves only for the last few thousand: whoever seeks further back gets a new listing that leaves out what
came before the position, so rewinddir(3), seekdir(3) and a directory that is emptied while it is read all work.
"""

from __future__ import annotations

import itertools
import logging
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from csi.errors import NoSuchEntry, OssFuseError
from csi.fs.inodes import stable_hash
from csi.fs.metadata import DIRECTORY, Facts, facts_of
from csi.fs.names import encode, is_visible, shown
from csi.fs.namespace import Namespace
from csi.fs.nodes import Node
from csi.fs.pages import AskedPage, PageSequence
from csi.fs.renewal import place_of
from csi.fs.turns import Turn
from csi.fs.types import DirectoryEntry, DirectoryName, FileKind
from csi.fs.walks import Walks
from csi.oss.store import ListedObject, ListPage

_KEPT = 4096
"""Entries kept for a reader that goes back a little, as the kernel does at the end of its buffer."""

_STEP = 64
"""Entries taken from a listing at a time."""

_WEIGHED = 16 * _STEP

_log = logging.getLogger(__name__)


class Found(NamedTuple):
    """One name of a listing. `facts` None: it is only being written here. `asked`, `at`: of the page it was on."""

    name: bytes
    cookie: int
    facts: Facts | None
    asked: int
    at: float


@dataclass(slots=True)
class Position:
    """One listing under way: `cookies` of all names it gave so far, the last ones of them in `kept`. `failure`: of the
    step after those, not told yet."""

    source: Iterator[Found]
    cookies: array[int] = field(default_factory=lambda: array("q"))
    kept: list[Found] = field(default_factory=list)
    ended: bool = False
    failure: OssFuseError | None = None


class OpenDirectory:
    """`turn`: one step of a listing at a time, requests included; it guards `_position`."""

    def __init__(
        self, node: Node, namespace: Namespace, walks: Walks, weigh: Callable[[], None], *, symlinks: bool
    ) -> None:
        """`weigh` is called now and then, when there are more inodes than before."""
        self.node = node
        self._namespace = namespace
        self._walks = walks
        self._weigh = weigh
        self._symlinks = symlinks
        self._turn = Turn()
        self._position: Position | None = None
        self.asked_at: float | None = None
        """When the first page of the listing under way was asked for."""

    def read(self, cookie: int) -> Iterator[DirectoryEntry]:
        """The entries after `cookie` (0: a new listing from the start). Each one that is taken counts as told to the
        kernel. Raises what OSS raises."""
        for place, found in self._found(cookie):
            is_told = found.facts is None or not found.facts.is_unfollowed
            entry = self._entry(found, place) if is_told else self._followed(found)
            if entry is not None:
                yield entry

    def scan(self, cookie: int, room: Callable[[], bool]) -> Iterator[DirectoryEntry | DirectoryName]:
        """`read`, with files told by name alone while there is no `room` for more inodes, and Symlinks that would have
        to be followed."""
        for place, found in self._found(cookie):
            entry: DirectoryEntry | DirectoryName | None
            facts = found.facts
            if facts is None or facts.kind is FileKind.DIRECTORY or (not facts.is_unfollowed and room()):
                entry = self._entry(found, place)
            else:
                entry = self._name(found, place)
            if entry is not None:
                yield entry

    def names(self, cookie: int) -> Iterator[DirectoryName]:
        """`read`, with nothing told of any of them."""
        for place, found in self._found(cookie):
            yield self._name(found, place)

    # --- steps ---

    def _found(self, cookie: int) -> Iterator[tuple[bytes, Found]]:
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
                step = self._step(position, index)
            if not step:
                return
            if index % _WEIGHED == 0:
                self._weigh()
            place = self._namespace.table.place(self.node)
            for found in step:
                index += 1
                yield place, found

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
        while step := self._step(again, len(again.cookies)):
            for index, found in enumerate(step, start=len(again.cookies) - len(step)):
                if found.cookie == cookie:
                    return self._cut(again, index + 1)
        return Position(self._list())

    def _cut(self, position: Position, count: int) -> Position:
        """`position` as it was after `count` names: the rest is given out again."""
        kept_from = len(position.cookies) - len(position.kept)
        rest = position.kept[count - kept_from :]
        position.source = itertools.chain(rest, position.source)
        del position.cookies[count:], position.kept[count - kept_from :]
        position.ended = False
        return position

    def _step(self, position: Position, index: int) -> Sequence[Found]:
        """Some of the entries from `index` on, taken from the source if they are the next ones; none at the end."""
        kept_from = len(position.cookies) - len(position.kept)
        if kept_from <= index < len(position.cookies):
            return position.kept[index - kept_from : index - kept_from + _STEP]
        if position.failure is not None:
            failure, position.failure = position.failure, None
            raise failure.with_traceback(None)
        step: list[Found] = []
        if not position.ended:
            try:
                step.extend(itertools.islice(position.source, _STEP))
            except OssFuseError as error:
                # a generator that raised is spent, and must not be taken for the end of the directory
                seen = {*position.cookies, *(found.cookie for found in step)}
                position.source = (again for again in self._list() if again.cookie not in seen)
                if not step:
                    raise
                position.failure = error
            else:
                position.ended = len(step) < _STEP
        if position.ended and not step:
            found = self._unlisted(position)
            step = [found] if found is not None else []
        position.cookies.extend(found.cookie for found in step)
        position.kept.extend(step)
        if len(position.kept) > 2 * _KEPT:
            del position.kept[:_KEPT]
        return step

    def _unlisted(self, position: Position) -> Found | None:
        """A file that is being written here and that OSS does not know yet, or the directory of one."""
        for child in self._namespace.table.written_in(self.node):
            cookie = stable_hash(child.name)
            if cookie not in position.cookies:
                return Found(child.name, cookie, None, 0, 0.0)
        return None

    def _entry(self, found: Found, place: bytes) -> DirectoryEntry | None:
        name, cookie, facts, asked, at = found
        knowledge = self._namespace.knowledge
        if facts is not None:
            entry = knowledge.listed(self.node, name, facts, asked, at, place)
            return None if entry is None else DirectoryEntry(name, entry, cookie)
        with self._namespace.table.lock:
            node = self._namespace.table.child(self.node, name)
            return None if node is None else DirectoryEntry(name, knowledge.tell(node, count=True), cookie)

    def _followed(self, found: Found) -> DirectoryEntry | None:
        """The entry of a Symlink that is shown as a file: no listing tells how that looks."""
        try:
            node = self._namespace.look_up(self.node, found.name)
        except NoSuchEntry:  # removed since
            return None
        return DirectoryEntry(found.name, self._namespace.knowledge.tell(node), found.cookie)

    def _name(self, found: Found, place: bytes) -> DirectoryName:
        table = self._namespace.table
        node = table.child(self.node, found.name)
        if node is not None and not _is_outdated(node, found):
            return DirectoryName(found.name, node.inode, node.kind, found.cookie)
        kind = found.facts.kind if found.facts is not None else FileKind.FILE
        return DirectoryName(found.name, table.number(place, found.name, kind), kind, found.cookie)

    # --- listing ---

    def _list(self) -> Iterator[Found]:
        kept = self._namespace.knowledge.kept_listing(self.node)
        if kept is not None:
            self.asked_at = kept.at
            for name, facts in kept.names.items():
                yield Found(name, stable_hash(name), facts, kept.asked, kept.at)
            return
        prefix = self._namespace.table.key(self.node)
        pages = self._walks.pages(self.node, prefix)
        knowledge = self._namespace.knowledge
        first = pages.next()
        if first is None:
            return
        self.asked_at = first.at
        listing = knowledge.begin_listing(self.node, first.asked, first.at)
        asked, last = 0, b""
        for found in self._visible(prefix, first, pages):
            assert found.facts is not None  # noqa: S101 - what is listed has facts
            if found.asked != asked:
                if asked:
                    knowledge.turn_page(self.node, listing, last, found.asked, found.at)
                knowledge.has_something(self.node, found.asked, found.at)
                asked = found.asked
            listing.names[found.name] = found.facts
            last = place_of(found.name, found.facts)
            yield found
        knowledge.end_listing(self.node, listing)

    def _visible(self, prefix: str, first: AskedPage, pages: PageSequence) -> Iterator[Found]:
        """Every visible name once, directories before files of the same name."""
        start = len(encode(prefix))
        waiting: Found | None = None  # each name is the beginning of the next one
        waiting_for = last_directory = b""
        earlier: list[Found] = []  # waiting as well
        current: AskedPage | None = first
        while current is not None:
            page, asked, at = current
            names = _in_order(page, start)
            half = len(names) // 2
            for number, (name, listed) in enumerate(names):
                if number == half:
                    pages.prepare()
                while waiting is not None and waiting_for < name:
                    yield waiting
                    waiting = earlier.pop() if earlier else None
                    waiting_for = waiting.name + b"/" if waiting is not None else b""
                if listed is None:
                    directory = name[:-1]
                    if waiting is not None and waiting.name == directory:
                        _log.info("the file %s is hidden by the directory of the same name", shown(directory))
                        waiting = earlier.pop() if earlier else None
                        waiting_for = waiting.name + b"/" if waiting is not None else b""
                    if directory != last_directory and is_visible(directory):
                        last_directory = directory
                        yield Found(directory, stable_hash(directory), DIRECTORY, asked, at)
                elif not name:
                    self._namespace.table.local(self.node).has_marker = True
                elif is_visible(name):
                    if waiting is not None:
                        earlier.append(waiting)
                    waiting = Found(name, stable_hash(name), facts_of(listed, symlinks=self._symlinks), asked, at)
                    waiting_for = name + b"/"
            current = pages.next()
        while waiting is not None:
            yield waiting
            waiting = earlier.pop() if earlier else None


def _is_outdated(node: Node, found: Found) -> bool:
    """Whether something of another kind has taken the place of `node` since."""
    facts = found.facts
    return facts is not None and facts.kind is not node.kind and node.asked < found.asked and node.draft is None


def _in_order(page: ListPage, start: int) -> list[tuple[bytes, ListedObject | None]]:
    """Objects and common prefixes of a page in the order of their keys, without the first `start` bytes; a prefix has
    no object and ends with '/'."""
    objects: list[tuple[bytes, ListedObject | None]] = [
        (found.key.encode("utf-8", "surrogateescape")[start:], found) for found in page.objects
    ]
    if not page.prefixes:
        return objects
    objects.extend((encode(prefix)[start:], None) for prefix in page.prefixes)
    objects.sort(key=lambda pair: pair[0])
    return objects
