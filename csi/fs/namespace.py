"""What is known about names, for how long it may be believed, and how new knowledge meets our own changes.

Two sources tell about a name: answers of OSS, and what this mount does itself. Every request takes a serial before it
is sent and every change of our own takes one when it is done; an answer that was asked for before our last change of a
name is ignored, so that a slow listing never brings back a file we removed. Files being written here are known from
their draft, whatever OSS says. `csi/fs/freshness.py` judges how old an answer may be.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from csi.errors import EntryExists, NoSuchEntry, NotADirectory, OssFuseError, PermissionDenied, StaleFile
from csi.fs.absences import Absences
from csi.fs.appearance import Appearance
from csi.fs.freshness import Freshness
from csi.fs.inodes import NEVER, InodeTable, Node
from csi.fs.listings import Listing, ListingCache
from csi.fs.metadata import APPENDABLE_TYPE, Facts, ask, ask_from
from csi.fs.names import check_lookup, directory_key, join, shown
from csi.fs.renewal import Flight, Page, Renewal
from csi.fs.types import FileKind
from csi.oss.store import ObjectStore
from csi.volume.spec import CachePolicy, MountArguments, Ownership
from csi.volume.units import InodeNumber, ObjectKey

_log = logging.getLogger(__name__)


class Namespace:
    """`table.lock` guards everything here; it is never held while OSS is asked."""

    def __init__(
        self,
        store: ObjectStore,
        table: InodeTable,
        arguments: MountArguments,
        ownership: Ownership,
        clock: Callable[[], float],
    ) -> None:
        self.table = table
        self.clock = clock
        self._store = store
        self._arguments = arguments
        self.shown = Appearance(table, arguments, ownership, clock)
        self._serials = itertools.count(1)
        self._absences = Absences()
        self._listings = ListingCache()
        self._fresh = Freshness(arguments, clock)

    # --- questions ---

    def directory(self, inode: InodeNumber) -> Node:
        """The directory `inode`. Raises NotADirectory, NoSuchEntry (it was removed), StaleFile."""
        node = self.table.get(inode)
        if not node.is_directory:
            raise NotADirectory(f"{shown(node.name)} is not a directory")
        if node.detached:
            raise NoSuchEntry(f"the directory {shown(node.name)} was removed")
        return node

    def known(self, parent: Node, name: bytes) -> Node | None:
        """What a LOOKUP may be told without asking OSS; None if it has to be asked. Raises NoSuchEntry when the
        absence of the name is known."""
        check_lookup(name)
        with self.table.lock:
            node = self.table.child(parent, name)
            if node is not None and (node.draft is not None or self._fresh.of_name(node.checked_at)):
                return node
            listing = self._listings.get(parent)
            if listing is not None and self._absences.asked(parent, name) < listing.asked:
                facts = listing.names.get(name)
                if facts is None and node is None and self._fresh.of_absence(listing.at):
                    raise _missing(name)
                if facts is not None and self._fresh.of_name(listing.at):
                    return self.learned(parent, name, facts, listing.asked, listing.at)
                page = listing.renewal.page(name)
                if page is not None and self._fresh.of_name(page.at):
                    listing.renewal.used += 1
                    return self.learned(parent, name, page.names[name], page.asked, page.at)
            if node is None and self._fresh.of_absence(self._absences.at(parent, name)):
                raise _missing(name)
        return None

    def look_up(self, parent: Node, name: bytes) -> Node:
        """The node of a name as LOOKUP sees it. Raises NoSuchEntry and what OSS raises."""
        node = self.known(parent, name) or self._renewed(parent, name) or self._ask(parent, name)
        if node is None:
            raise _missing(name)
        node.ticket = True
        return node

    def find(self, parent: Node, name: bytes) -> Node | None:
        """The node of a name that is about to be changed: what the LOOKUP before it found is good enough."""
        check_lookup(name)
        with self.table.lock:
            node = self.table.child(parent, name)
            if node is not None and (node.draft is not None or self._fresh.for_change(node.checked_at)):
                return node
            if node is None and self._fresh.for_making(self._absences.at(parent, name)):
                return None
        return self._ask(parent, name)

    @contextmanager
    def held(self, parent: Node, name: bytes) -> Iterator[Node | None]:
        """`find`, with the node kept in the table while the block runs even if the kernel was never told of it."""
        node = self.find(parent, name)
        if node is None:
            yield None
            return
        with self.table.lock:
            node.lookups += 1
        try:
            yield node
        finally:
            self.table.forget(node.inode, 1)

    @contextmanager
    def existing(self, parent: Node, name: bytes) -> Iterator[Node]:
        """`held`, raising NoSuchEntry."""
        with self.held(parent, name) as node:
            if node is None:
                raise _missing(name)
            yield node

    def require_absent(self, parent: Node, name: bytes) -> None:
        """Raises EntryExists."""
        with self.held(parent, name) as node:
            if node is not None:
                raise EntryExists(f"{shown(name)} exists")

    def has_current_attributes(self, node: Node) -> bool:
        """Whether GETATTR may be answered without asking OSS."""
        if node.detached or node.draft is not None or node is self.table.root:
            return True
        return self._fresh.of_attributes(node.checked_at)

    def is_current_for_open(self, node: Node) -> bool:
        """Whether OPEN may use what is known. The ticket of a LOOKUP is good for one open, which is the one that the
        LOOKUP was made for: close-to-open holds with all timeouts 0."""
        with self.table.lock:
            ticket, node.ticket = node.ticket, False
            if node.draft is not None or node.detached:
                return True
            return self._fresh.of_version(node.checked_at, looked_up=ticket)

    def refresh(self, node: Node) -> None:
        """Ask OSS about a node again. Unless the file is open, then what was known stays: raises NoSuchEntry when the
        name is gone, StaleFile when it is another file's (ESTALE makes the kernel look the name up again)."""
        parent = node.parent
        if parent is None or node.detached:
            return
        found = self._ask(parent, node.name)
        if found is not None and found is not node:
            self.table.drop_unused(found)
        if found is node or (node.local is not None and node.local.handles):
            return
        if found is None:
            raise _missing(node.name)
        raise StaleFile(f"{shown(node.name)} was replaced by another client", hint="open it again")

    # --- answers ---

    def learned(
        self, parent: Node, name: bytes, facts: Facts | None, asked: int, at: float, *, count: bool = False
    ) -> Node | None:
        """Take in what OSS said about a name (None: nothing is there), asked for at serial `asked` and time `at`.

        Returns the node that now has the name, None if there is none. `count`: the kernel is told of it.
        """
        with self.table.lock:
            node = self.table.child(parent, name)
            if node is None and self._absences.asked(parent, name) > asked:
                return None
            if node is not None and node.asked <= asked and node.draft is None:
                node = self._update(node, facts)
            if node is None and facts is not None and not parent.detached:
                node = self.table.add(parent, name, facts.kind)
                node.facts = facts
            if node is None:
                self._absences.note(parent, name, asked, at)
                return None
            if node.draft is None and node.asked <= asked:
                node.asked, node.checked_at = asked, at
            node.lookups += count
            return node

    def keep_listing(self, directory: Node, names: Mapping[bytes, Facts], asked: int, at: float) -> None:
        """A directory was listed from end to end."""
        with self.table.lock:
            if directory.local is None or directory.local.changed < asked:
                self._listings.put(directory, Listing(names, asked, at))

    def kept_listing(self, directory: Node) -> Listing | None:
        """The listing that readdir may show again instead of asking."""
        with self.table.lock:
            listing = self._listings.get(directory)
            return listing if listing is not None and self._fresh.of_listing(listing.at) else None

    def serial(self) -> int:
        return next(self._serials)

    # --- our own changes ---

    def made(self, parent: Node, name: bytes, kind: FileKind) -> Node:
        """The node for a name this mount is making."""
        with self.table.lock:
            node = self.table.child(parent, name)
            if node is not None and node.kind is not kind:
                self.table.detach(node)
                node = None
            if node is None:
                node = self.table.add(parent, name, kind)
            self._absences.drop(parent, name)
            self._touch(parent)
            return node

    def changed(self, node: Node, facts: Facts | None, *, checked: bool = False) -> None:
        """This mount made another version of `node`. Unless `checked`, OSS is asked before attributes are shown again:
        only it knows the time."""
        with self.table.lock:
            node.facts = facts
            node.asked = self.serial()
            node.checked_at = self.clock() if checked else NEVER
            if node.parent is not None:
                self._outdate_listing(node.parent)

    def removed(self, node: Node) -> None:
        """This mount removed the name of `node`."""
        with self.table.lock:
            parent = node.parent
            self.table.local(node).unlinked = True
            if parent is None or node.detached:
                return
            self._absences.note(parent, node.name, self.serial(), self.clock())
            self._touch(parent)
            self.table.detach(node)

    def withdrawn(self, node: Node) -> None:
        """A file that this mount was making did not come to be; another client may have made one of its name."""
        with self.table.lock:
            self.table.local(node).unlinked = True
            if node.parent is not None:
                self._outdate_listing(node.parent)
            self.table.detach(node)

    def moved(self, node: Node, parent: Node, name: bytes) -> None:
        """This mount renamed `node`."""
        with self.table.lock:
            old, old_name = node.parent, node.name
            replaced = self.table.child(parent, name)
            if replaced is not None:
                self.table.local(replaced).unlinked = True
                self.table.detach(replaced)
            self.table.move(node, parent, name)
            self._absences.drop(parent, name)
            if old is not None:
                self._absences.note(old, old_name, self.serial(), self.clock())
                self._touch(old)
            self._touch(parent)
            for below in self.table.descendants(node):
                below.asked, below.checked_at = self.serial(), NEVER
                self._listings.drop(below)

    def distrust(self, node: Node) -> None:
        """A change of `node` and what is below it was left half done: ask OSS before showing any of it."""
        with self.table.lock:
            for each in (node, *self.table.descendants(node)):
                each.checked_at = NEVER
                self._listings.drop(each)

    def forget_absence(self, parent: Node, name: bytes) -> None:
        """A name may be there now, through nothing this mount was told to make."""
        with self.table.lock:
            self._absences.drop(parent, name)
            self._outdate_listing(parent)

    def ensure_marker(self, directory: Node) -> None:
        """Give a directory a marker object before something in it is removed, so that it does not vanish with it."""
        if directory is self.table.root or directory.detached:
            return
        local = self.table.local(directory)
        if local.has_marker:
            return
        key = self.table.key(directory)
        page = self._store.list_page(key, max_keys=1)
        if not page.objects or page.objects[0].key != key:
            try:
                self._store.put(key, [], content_type="application/x-directory")
            except PermissionDenied as error:
                _log.warning("%s stays without a marker object and vanishes when it is empty: %s", key, error)
                return
        local.has_marker = True

    # --- private ---

    def _renewed(self, parent: Node, name: bytes) -> Node | None:
        """Ask OSS about a name of a kept listing and those that follow it, or wait for a request under way that does;
        None if the name has to be asked for by itself."""
        if not self._fresh.keeps_names:
            return None
        with self.table.lock:
            listing = self._listings.get(parent)
            found = listing.renewal.join(name) if listing is not None else None
            directory = self.table.key(parent)
        if listing is None or found is None:
            return None
        flight, is_new = found
        if is_new:
            self._fly(listing.renewal, flight, directory)
        page = flight.result()
        facts = page.names.get(name) if page is not None else None
        if page is None or facts is None:
            return None
        with self.table.lock:
            listing.renewal.used += not is_new
            return self.learned(parent, name, facts, page.asked, page.at)

    def _fly(self, renewal: Renewal, flight: Flight, directory: ObjectKey) -> None:
        """Ask for a page. A failure is kept for all who wait for it."""
        asked, at = self.serial(), self.clock()
        try:
            symlinks = self._arguments.symlinks
            names = ask_from(self._store, directory, flight.after, flight.size, symlinks=symlinks)
            flight.page = Page(names, asked, at)
        except OssFuseError as error:
            flight.error = error
        finally:
            with self.table.lock:
                renewal.land(flight)

    def _ask(self, parent: Node, name: bytes) -> Node | None:
        """Ask OSS about one name."""
        if parent.detached or name in (b".", b"..") or b"/" in name or not name:
            return None
        path = join(self.table.path(parent), name)
        asked, at = self.serial(), self.clock()
        facts = None
        if len(directory_key(self.table.prefix, path).encode("utf-8", "surrogateescape")) <= 1024:
            facts = ask(self._store, ObjectKey(self.table.prefix + path), symlinks=self._arguments.symlinks)
        return self.learned(parent, name, facts, asked, at)

    def _update(self, node: Node, facts: Facts | None) -> Node | None:
        """Give `node` its new facts; None if the name is no longer this inode's. The lock is held."""
        if facts is None and node.is_directory and self._holds_drafts(node):
            return node
        if facts is None and node.facts is None and node.local is not None and node.local.handles:
            return node  # it is just being made
        if facts is None or facts.kind is not node.kind or self._is_another_file(node, facts):
            self.table.detach(node)
            return None
        if node.facts != facts:
            node.facts = facts
        return node

    def _is_another_file(self, node: Node, facts: Facts) -> bool:
        """Whether another client replaced a file that the kernel knows. It keeps one size and one set of cached pages
        for an inode, and of two answers under way it may keep the older: the new version needs an inode of its own, or
        programs would be shown bytes of two versions, or the end of one as the end of the other. With -okernel_cache
        that is what was asked for, until the file is opened."""
        known, is_open = node.facts, node.local is not None and bool(node.local.handles)
        if known is None or not known.etag or node.kind is not FileKind.FILE:
            return False
        if not is_open and (not node.lookups or self._arguments.cache is CachePolicy.KERNEL):
            return False
        if (facts.etag, facts.size) == (known.etag, known.size):
            return False
        return not (facts.type == known.type == APPENDABLE_TYPE and facts.size >= known.size)

    def _holds_drafts(self, node: Node) -> bool:
        return any(below.draft is not None for below in self.table.descendants(node))

    def _touch(self, directory: Node) -> None:
        """A name in `directory` was made or removed here."""
        local = self.table.local(directory)
        local.changed_ns, local.times = int(self.clock() * 1e9), None
        self._outdate_listing(directory)

    def _outdate_listing(self, directory: Node) -> None:
        self.table.local(directory).changed = self.serial()
        self._listings.drop(directory)


def _missing(name: bytes) -> NoSuchEntry:
    return NoSuchEntry(f"{shown(name)} does not exist")
